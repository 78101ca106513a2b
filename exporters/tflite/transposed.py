"""A transposed convolution in NHWC: TRANSPOSE_CONV.

The output of a transposed convolution is the image whose ordinary convolution has the input's shape. Without padding
that image has

    full = (n - 1) * stride + dilation * (k - 1) + 1

pixels along an axis. ONNX's padding cuts pixels off at both ends, and ONNX's ``output_padding`` appends pixels that no
window reaches. TFLite's SAME is one such cut; every other output is a slice of the whole image. Dilation is written
into the kernel as zeros. A few groups become one transposed convolution each. Many groups become one ordinary
convolution, for which TFLite has groups, of the input with ``stride - 1`` zeros between its pixels, which two paddings
write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekron.algebra import Geometry
from edgekron.graph.nodes import adjoint_kernel

from .convolution import Filters, convolve
from .operators.slicing import strided_slice
from .program import Program, Tensor

#: From this many groups on, all groups are one ordinary convolution, in which the zeros are multiplied too.
_MANY = 5


def transpose_convolve(
    program: Program, x: Tensor, filters: Filters, geometry: Geometry, output_padding: tuple[int, int], name: str
) -> Tensor:
    """Convolves ``x`` [N, H, W, C] with ``filters``; gives [N, H', W', O].

    Raises ``ValueError`` where the padding leaves nothing.
    """
    filters = replace(filters, kernel=_dilated(filters.kernel, geometry.dilation))
    size, window = x.shape[1:3], filters.kernel.shape[2:]
    before = [pair[0] for pair in geometry.padding]
    full = [(n - 1) * s + k for n, s, k in zip(size, geometry.stride, window, strict=True)]
    output = [f - sum(p) + e for f, p, e in zip(full, geometry.padding, output_padding, strict=True)]
    if min(output) < 1:
        raise ValueError(f"the padding {geometry.padding} leaves nothing of {full[0]}x{full[1]}")
    # Larger than the full image where an output padding appends more pixels than are cut off in front.
    whole = [max(f, c + out) for f, c, out in zip(full, before, output, strict=True)]
    if filters.groups >= _MANY:
        y = _spread(program, x, filters, whole, geometry.stride, name)
    elif all(
        out == n * s and k >= s and cut == (k - s) // 2
        for out, n, s, k, cut in zip(output, size, geometry.stride, window, before, strict=True)
    ):
        y, before = _grouped(program, x, filters, output, geometry.stride, "SAME", name), [0, 0]
    else:
        y = _grouped(program, x, filters, whole, geometry.stride, "VALID", name)
    kept = {i + 1: (cut, 1, out) for i, (cut, out) in enumerate(zip(before, output, strict=True))}
    y = strided_slice(program, y, kept, f"{name}/cut")
    if filters.bias is not None:
        y = program.emit("ADD", [y, program.constant(f"{name}/bias", filters.bias)], y.shape, name)
    return y


def _grouped(
    program: Program,
    x: Tensor,
    filters: Filters,
    size: Sequence[int],
    stride: tuple[int, int],
    padding: str,
    name: str,
) -> Tensor:
    """An image of ``size`` pixels by one TRANSPOSE_CONV for each group."""
    groups, outputs = filters.groups, filters.kernel.shape[1]
    each, shape = x.shape[3] // groups, (x.shape[0], *size, outputs)
    slices = [strided_slice(program, x, {3: (g * each, 1, each)}, f"{name}/group{g}") for g in range(groups)]
    parts = []
    for part, kernel in zip(slices, np.split(filters.kernel, groups), strict=True):
        inputs = [
            program.integers(f"{name}/size", shape),
            program.constant(filters.name, kernel.transpose(1, 2, 3, 0)),
            part,
        ]
        y = program.emit(
            "TRANSPOSE_CONV",
            inputs,
            shape,
            f"{name}/whole",
            dtype=x.dtype,
            padding=padding,
            strideH=stride[0],
            strideW=stride[1],
        )
        parts.append(y)
    if groups == 1:
        return parts[0]
    return program.emit("CONCATENATION", parts, (*shape[:3], outputs * groups), f"{name}/groups", axis=3)


def _spread(
    program: Program, x: Tensor, filters: Filters, size: Sequence[int], stride: tuple[int, int], name: str
) -> Tensor:
    """An image of ``size`` pixels by the ordinary convolution of ``x`` with zeros between its pixels."""
    n, height, width, channels = x.shape
    rows = program.reshape(x, (n * height, 1, width, channels), f"{name}/rows")
    rows = program.pad(rows, ((0, 0), (0, stride[0] - 1), (0, 0), (0, 0)), f"{name}/between_rows")
    columns = program.reshape(rows, (n * height * stride[0] * width, 1, channels), f"{name}/columns")
    columns = program.pad(columns, ((0, 0), (0, stride[1] - 1), (0, 0)), f"{name}/between_columns")
    image = program.reshape(columns, (n, height * stride[0], width * stride[1], channels), f"{name}/spread")
    kh, kw = filters.kernel.shape[2:]
    # Behind the last pixel the image has stride - 1 zeros already; a negative rest is cut off before.
    rest = [d - (k - 1) - s for d, k, s in zip(size, (kh, kw), image.shape[1:3], strict=True)]
    kept = {i + 1: (0, 1, s + min(r, 0)) for i, (s, r) in enumerate(zip(image.shape[1:3], rest, strict=True))}
    image = strided_slice(program, image, kept, f"{name}/kept")
    after = [k - 1 + max(r, 0) for k, r in zip((kh, kw), rest, strict=True)]
    geometry = Geometry((1, 1), (1, 1), ((kh - 1, after[0]), (kw - 1, after[1])))
    adjoint = Filters(adjoint_kernel(filters.kernel, filters.groups), filters.name, groups=filters.groups)
    return convolve(program, image, adjoint, geometry, f"{name}/whole")


def _dilated(kernel: np.ndarray, dilation: tuple[int, int]) -> np.ndarray:
    spread = np.zeros((*kernel.shape[:2], *(d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[2:], strict=True))))
    spread[:, :, :: dilation[0], :: dilation[1]] = kernel
    return spread.astype(np.float32)
