"""Torch's adaptive average pooling in the operators of ONNX, which has none of its own for this.

Pixel i of o along an axis of n is the mean of the pixels from floor(i n / o) to ceil((i + 1) n / o), so the pool is
linear in each axis:

    y = A_h x A_w^T        A [o, n]: one over the size of its window for each pixel in it, zero elsewhere

If o divides n along both axes, the pool is an ordinary AveragePool; if both outputs are 1, a GlobalAveragePool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Its annotations are those of tensors with values; while torch exports, operators take and give values of a graph.
op: Any = opset20


def pooling_matrix(size: int, output: int) -> np.ndarray:
    """A [output, size], float32: row i takes the mean of its window."""
    matrix = np.zeros((output, size))
    for i in range(output):
        first, last = i * size // output, -(-(i + 1) * size // output)
        matrix[i, first:last] = 1 / (last - first)
    return matrix.astype(np.float32)


def adaptive_avg_pool2d(x: ir.Value, output_size: Sequence[int | None]) -> ir.Value:
    """The ONNX nodes for a value ``x`` [..., H, W] of known H and W; an output size of None keeps the input's."""
    shape = list(x.shape or ())
    rank, sizes = len(shape), [n for n in shape[-2:] if isinstance(n, int)]
    outputs = [n if o is None else int(o) for n, o in zip(sizes, output_size, strict=True)]
    if rank == 4 and outputs == [1, 1]:
        return op.GlobalAveragePool(x)
    if rank == 4 and all(n % o == 0 for n, o in zip(sizes, outputs, strict=True)):
        window = [n // o for n, o in zip(sizes, outputs, strict=True)]
        return op.AveragePool(x, kernel_shape=window, strides=window)
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    rows = op.MatMul(op.Constant(value=_tensor(sizes[0], outputs[0])), x)
    columns = op.MatMul(op.Constant(value=_tensor(sizes[1], outputs[1])), op.Transpose(rows, perm=swapped))
    return op.Transpose(columns, perm=swapped)


def _tensor(size: int, output: int) -> ir.TensorProtocol:
    return ir.tensor(pooling_matrix(size, output))


#: For ``torch.onnx.export``.
TRANSLATIONS: dict[Callable[..., object], Callable[..., ir.Value]] = {
    torch.ops.aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
}
