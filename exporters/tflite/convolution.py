"""A convolution in NHWC: DEPTHWISE_CONV_2D if every channel is a group of its own, else CONV_2D.

**Width fold.** A convolution that treats ``fold`` slices of the channels alike reads [N, H, W, fold * C] as an image
[N, H, W * fold, C]. A neighbour in the width is then ``fold`` columns away, so that the width's dilation and
padding are multiplied by ``fold``. This is exact for stride 1, and the filters are stored once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekron.algebra import Geometry

from .program import Program, Tensor
from .windows import Axis, place


@dataclass(frozen=True, eq=False)
class Filters:
    """The constants of a convolution.

    ``kernel`` is [O, C / groups, kh, kw], of a transposed convolution [C, O / groups, kh, kw]; ``name`` is that of the
    kernel in the file; ``bias`` is [O], or None.
    """

    kernel: np.ndarray
    name: str
    bias: np.ndarray | None = None
    groups: int = 1


def convolve(program: Program, x: Tensor, filters: Filters, geometry: Geometry, name: str, *, fold: int = 1) -> Tensor:
    """Convolves ``x`` [N, H, W, fold * C] with ``filters``; gives [N, H', W', fold * O].

    Raises ``ValueError`` for a window that does not fit, and for a fold with a stride along the width.
    """
    n, height, width, channels = x.shape
    kernel, groups = filters.kernel, filters.groups
    outputs, _, kh, kw = kernel.shape
    if fold > 1:
        if geometry.stride[1] != 1:
            raise ValueError("slices cannot be folded into a width with a stride")
        width, channels = width * fold, channels // fold
        x = program.reshape(x, (n, height, width, channels), f"{name}/folded")
    dilation = (geometry.dilation[0] if kh > 1 else 1, geometry.dilation[1] * fold if kw > 1 else 1)
    (top, bottom), (left, right) = geometry.padding
    h = Axis(height, dilation[0] * (kh - 1) + 1, geometry.stride[0], top, bottom)
    w = Axis(width, dilation[1] * (kw - 1) + 1, geometry.stride[1], left * fold, right * fold)
    if h.output < 1 or w.output < 1:
        raise ValueError(f"a window of {h.window}x{w.window} does not fit an input of {height}x{width}")
    placement = place(h, w)
    x = program.pad(x, ((0, 0), *placement.explicit, (0, 0)), f"{name}/padded")
    depthwise = groups == channels and groups > 1
    weight = kernel.transpose(1, 2, 3, 0) if depthwise else kernel.transpose(0, 2, 3, 1)
    bias = np.zeros(outputs, np.float32) if filters.bias is None else filters.bias.astype(np.float32)
    options = {"depthMultiplier": outputs // channels} if depthwise else {}
    y = program.emit(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [x, program.constant(filters.name, weight), program.constant(f"{name}/bias", bias)],
        (n, h.output, w.output, outputs),
        f"{name}/slices" if fold > 1 else name,
        dtype=x.dtype,
        padding=placement.padding,
        strideH=h.stride,
        strideW=w.stride,
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        **options,
    )
    if fold > 1:
        y = program.reshape(y, (n, h.output, w.output // fold, fold * outputs), name)
    return y
