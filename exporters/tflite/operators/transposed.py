"""ConvTranspose: dense, grouped and dilated."""

from __future__ import annotations

from edgekron.algebra import Geometry, Padding
from edgekron.exporters.tflite.convolution import Filters
from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call
from edgekron.exporters.tflite.transposed import transpose_convolve

from .conv import given_padding, pair


@translates("ConvTranspose")
def conv_transpose(call: Call) -> None:
    """TRANSPOSE_CONV, or CONV_2D for many groups, of [N, C, H, W] with a constant kernel [C, O / group, kh, kw]."""
    kernel = call.numbers(1, "weight")
    if kernel.ndim != 4:
        call.refuse(f"a {kernel.ndim - 2}-D transposed convolution is not supported", "use 2-D convolutions")
    bias = call.numbers(2, "bias") if call.has(2) else None
    filters = Filters(kernel, call.input_name(1), bias, int(call.attribute("group", 1)))
    stride, dilation, extra = pair(call, "strides", 1), pair(call, "dilations", 1), pair(call, "output_padding", 0)
    x = call.value(0, NHWC).tensor
    padding = _padding(call, x.shape[1:3], kernel.shape[2:], stride, dilation, extra)
    if min(sum(padding, ())) < 0:
        call.refuse(f"negative padding {padding} is not supported", "pad the output with Pad instead")
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        call.refuse(
            f"an output padding {extra} of at least the stride is not supported", "make it less than the stride"
        )
    try:
        y = transpose_convolve(call.program, x, filters, Geometry(stride, dilation, padding), extra, call.name)
    except ValueError as error:
        call.refuse(str(error), "cut less")
    call.finish(y, NHWC)


def _padding(
    call: Call,
    size: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    extra: tuple[int, ...],
) -> Padding:
    """((top, bottom), (left, right)) to cut: ``pads``, or the cut that leaves ``output_shape`` or a SAME size."""
    mode, shape = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = [n * s for n, s in zip(size, stride, strict=True)]
    if shape is None:
        return given_padding(call)
    pairs = []
    for n, k, s, d, e, wanted in zip(size, window, stride, dilation, extra, list(shape)[-2:], strict=True):
        total = (n - 1) * s + e + d * (k - 1) + 1 - int(wanted)
        less, more = total // 2, total - total // 2
        pairs.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return pairs[0], pairs[1]
