"""Conv: dense, grouped and depthwise."""

from __future__ import annotations

from edgekron.algebra import Geometry, Padding
from edgekron.exporters.tflite.convolution import convolve
from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call
from edgekron.exporters.tflite.windows import automatic


@translates("Conv")
def conv(call: Call) -> None:
    """[N, C, H, W] with a constant kernel [O, C / group, kh, kw]."""
    kernel = call.numbers(1, "weight")
    if kernel.ndim != 4:
        call.refuse(f"a {kernel.ndim - 2}-D convolution is not supported", "use 2-D convolutions")
    bias = call.numbers(2, "bias") if call.has(2) else None
    x = call.value(0, NHWC).tensor
    stride, dilation = (
        (int(a), int(b)) for a, b in (call.attribute("strides", (1, 1)), call.attribute("dilations", (1, 1)))
    )
    padding = explicit_padding(call, x.shape[1:3], kernel.shape[2:], stride, dilation)
    if min(sum(padding, ())) < 0:
        call.refuse(f"negative padding {padding} is not supported", "crop the input with Slice instead")
    try:
        y = convolve(
            call.program,
            x,
            kernel,
            bias,
            Geometry(stride, dilation, padding),
            groups=int(call.attribute("group", 1)),
            name=call.name,
            kernel_name=call.input_name(1),
        )
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
        top, left, bottom, right = (int(p) for p in call.attribute("pads", (0, 0, 0, 0)))
        return (top, bottom), (left, right)
    h, w = (automatic(mode, n, d * (k - 1) + 1, s) for n, k, s, d in zip(size, window, stride, dilation, strict=True))
    return h, w
