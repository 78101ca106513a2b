"""ConvTranspose: dense, grouped and dilated."""

from __future__ import annotations

from edgekron.algebra import Geometry
from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call
from edgekron.exporters.tflite.transposed import transpose_convolve

#: Groups are slices, convolutions and a concatenation; more than this many would be slower than anything else.
_MOST_GROUPS = 64


@translates("ConvTranspose")
def conv_transpose(call: Call) -> None:
    """[N, C, H, W] with a constant kernel [C, O / group, kh, kw]."""
    kernel = call.numbers(1, "weight")
    if kernel.ndim != 4:
        call.refuse(f"a {kernel.ndim - 2}-D transposed convolution is not supported", "use 2-D convolutions")
    if call.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or call.attribute("output_shape") is not None:
        call.refuse("its padding follows from an output shape", "give explicit pads and output_padding")
    groups = int(call.attribute("group", 1))
    if groups > _MOST_GROUPS:
        call.refuse(
            f"TFLite has no grouped transposed convolution, and {groups} single ones are too many",
            "resize and use an ordinary depthwise convolution",
        )
    bias = call.numbers(2, "bias") if call.has(2) else None
    stride, dilation, extra = (
        (int(a), int(b))
        for a, b in (
            call.attribute("strides", (1, 1)),
            call.attribute("dilations", (1, 1)),
            call.attribute("output_padding", (0, 0)),
        )
    )
    top, left, bottom, right = (int(p) for p in call.attribute("pads", (0, 0, 0, 0)))
    padding = (top, bottom), (left, right)
    if min(top, left, bottom, right) < 0:
        call.refuse(f"negative padding {padding} is not supported", "pad the output with Pad instead")
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        call.refuse(
            f"an output padding {extra} of at least the stride is not supported", "make it less than the stride"
        )
    try:
        y = transpose_convolve(
            call.program,
            call.value(0, NHWC).tensor,
            kernel,
            bias,
            Geometry(stride, dilation, padding),
            extra,
            groups=groups,
            name=call.name,
            kernel_name=call.input_name(1),
        )
    except ValueError as error:
        call.refuse(str(error), "cut less")
    call.finish(y, NHWC)
