"""Pad: constant and reflecting."""

from __future__ import annotations

from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, axes_of

from .slicing import strided_slice


@translates("Pad")
def pad(call: Call) -> None:
    """PAD, PADV2 or MIRROR_PAD; a negative padding crops."""
    x = call.value()
    rank = len(x.order)
    pads = call.vector(1, "pads") or []
    axes = axes_of(call.vector(3, "axes") or range(rank), rank)
    padding = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        padding[x.axis(axis)] = (pads[i], pads[i + len(axes)])
    y = x.tensor
    cropped = {
        i: (max(-before, 0), 1, y.shape[i] + min(before, 0) + min(after, 0))
        for i, (before, after) in enumerate(padding)
    }
    if any(count < 1 for _, _, count in cropped.values()):
        call.refuse(f"negative pads {pads} leave nothing of {list(x.shape)}", "crop less")
    y = strided_slice(call.program, y, cropped, f"{call.name}/cropped")
    padding = [(max(before, 0), max(after, 0)) for before, after in padding]
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        value = float(call.numbers(2, "value").reshape(())) if call.has(2) else float(call.attribute("value", 0.0))
        y = call.program.pad(y, padding, call.name, value)
    elif mode == "reflect":
        y = _reflect(call, y, padding)
    else:
        call.refuse(f"mode {mode!r} has no TFLite operator", "pad with zeros or by reflection")
    call.finish(y, x.order)


def _reflect(call: Call, y: Tensor, padding: list[tuple[int, int]]) -> Tensor:
    if any(max(pair) >= n for pair, n in zip(padding, y.shape, strict=True)):
        call.refuse(f"a reflection by {padding} is wider than the input {y.shape}", "pad less")
    if not any(sum(pair) for pair in padding):
        return y
    shape = [n + sum(pair) for n, pair in zip(y.shape, padding, strict=True)]
    inputs = [y, call.program.integers(f"{call.name}/padding", padding)]
    return call.program.emit("MIRROR_PAD", inputs, shape, call.name, mode="REFLECT")
