"""Conv: dense, grouped and depthwise."""

from __future__ import annotations

from edgekron.algebra import Geometry, Padding, Pair
from edgekron.exporters.tflite.convolution import Filters, convolve
from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call
from edgekron.exporters.tflite.windows import automatic


@translates("Conv")
def conv(call: Call) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D of [N, C, H, W] with a constant kernel [O, C / group, kh, kw]."""
    kernel = call.numbers(1, "weight")
    if kernel.ndim != 4:
        call.refuse(f"a {kernel.ndim - 2}-D convolution is not supported", "use 2-D convolutions")
    bias = call.numbers(2, "bias") if call.has(2) else None
    filters = Filters(kernel, call.input_name(1), bias, int(call.attribute("group", 1)))
    x = call.value(0, NHWC).tensor
    stride, dilation = pair(call, "strides", 1), pair(call, "dilations", 1)
    padding = explicit_padding(call, x.shape[1:3], kernel.shape[2:], stride, dilation)
    if min(sum(padding, ())) < 0:
        call.refuse(f"negative padding {padding} is not supported", "crop the input with Slice instead")
    try:
        y = convolve(call.program, x, filters, Geometry(stride, dilation, padding), call.name)
    except ValueError as error:
        call.refuse(str(error), "give the network a larger input")
    call.finish(y, NHWC)


def explicit_padding(
    call: Call,
    size: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Padding:
    """((top, bottom), (left, right)) from ``pads`` or ``auto_pad``."""
    mode = call.attribute("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return given_padding(call)
    h, w = (automatic(mode, n, d * (k - 1) + 1, s) for n, k, s, d in zip(size, window, stride, dilation, strict=True))
    return h, w


def given_padding(call: Call) -> Padding:
    """((top, bottom), (left, right)) as ``pads`` gives them."""
    top, left, bottom, right = (int(p) for p in call.attribute("pads", (0, 0, 0, 0)))
    return (top, bottom), (left, right)


def pair(call: Call, name: str, default: int) -> Pair:
    """An attribute's numbers along the height and the width."""
    height, width = call.attribute(name, (default, default))
    return int(height), int(width)
