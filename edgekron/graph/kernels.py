"""The kernel of an ordinary layer, from the weight that its node stores.

============  ============================  ==============================================================
layout        stored weight                 kernel [F, C / groups, kh, kw]
============  ============================  ==============================================================
``conv``      [F, C / groups, kh, kw]       the weight itself
``adjoint``   [C, F / groups, kh, kw]       channels swapped, window backwards: see ``nodes.adjoint_kernel``
``rows``      [F, C]                        the weight with a window of one pixel
``columns``   [C, F]                        the transposed weight with a window of one pixel
============  ============================  ==============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from .nodes import adjoint_kernel

Layout = Literal["conv", "adjoint", "rows", "columns"]


@dataclass(frozen=True, eq=False)
class DenseKernel:
    """A stored weight, and the layout in which it holds the kernel of a layer in ``groups`` groups.

    Tensors of a hub are never changed in place, so the kernel stays the same when the node gets another weight.
    """

    weight: ir.TensorProtocol
    layout: Layout
    groups: int = 1

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape [F, C / groups, kh, kw], without reading the weight."""
        first, second, *window = self.weight.shape.numpy()
        if self.layout == "conv":
            return first, second, window[0], window[1]
        if self.layout == "adjoint":
            return second * self.groups, first // self.groups, window[0], window[1]
        return (first, second, 1, 1) if self.layout == "rows" else (second, first, 1, 1)

    def kernel(self) -> np.ndarray:
        """The kernel [F, C / groups, kh, kw], float32; a view of the weight where the layout allows."""
        array = self.weight.numpy()
        if self.layout == "conv":
            return array
        if self.layout == "adjoint":
            return adjoint_kernel(array, self.groups)
        return (array if self.layout == "rows" else array.T)[:, :, None, None]


def dense_kernel(node: ir.Node) -> DenseKernel | None:
    """The kernel of a Conv, ConvTranspose, Gemm or MatMul node.

    None where the weight is not constant float32, or not that of a layer of images or rows. Whether a ConvTranspose
    has an equivalent ordinary convolution is for the caller to check.
    """
    value = node.inputs[1]
    weight = None if value is None else value.const_value
    if weight is None or weight.dtype != ir.DataType.FLOAT:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        layout: Layout = "conv" if node.op_type == "Conv" else "adjoint"
        return DenseKernel(weight, layout, node.attributes.get_int("group", 1)) if len(weight.shape) == 4 else None
    rows = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return DenseKernel(weight, "rows" if rows else "columns")
