"""Pad in every mode: constant, reflect, edge and wrap."""

from __future__ import annotations

from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, axes_of

from .slicing import strided_slice


@translates("Pad")
def pad(call: Call) -> None:
    """PAD, PADV2, MIRROR_PAD, or copies of slices joined to the input; a negative padding crops."""
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
        for axis, pair in enumerate(padding):
            y = _repeat(call, y, axis, pair, mode)
    call.finish(y, x.order)


def _repeat(call: Call, y: Tensor, axis: int, pair: tuple[int, int], mode: str) -> Tensor:
    """The input extended along one axis by its outermost values (edge) or by the values of the other end (wrap)."""
    size, (before, after) = y.shape[axis], pair
    if not (before or after):
        return y
    if mode == "edge":
        first, last = (
            strided_slice(call.program, y, {axis: (i, 1, 1)}, f"{call.name}/edge{axis}") for i in (0, size - 1)
        )
        parts = [first] * before + [y] + [last] * after
    else:
        runs = [(-before % size, size), *[(0, size)] * (-(-before // size) - 1)] if before else []
        runs += [(0, size), *[(0, size)] * (after // size), (0, after % size)]
        parts = [
            strided_slice(call.program, y, {axis: (start, 1, end - start)}, f"{call.name}/run{axis}")
            for start, end in runs
            if end > start
        ]
    shape = [n + before + after if i == axis else n for i, n in enumerate(y.shape)]
    return call.program.emit("CONCATENATION", parts, shape, f"{call.name}/joined{axis}", axis=axis)


def _reflect(call: Call, y: Tensor, padding: list[tuple[int, int]]) -> Tensor:
    if any(max(pair) >= n for pair, n in zip(padding, y.shape, strict=True)):
        call.refuse(f"a reflection by {padding} is wider than the input {y.shape}", "pad less")
    if not any(sum(pair) for pair in padding):
        return y
    shape = [n + sum(pair) for n, pair in zip(y.shape, padding, strict=True)]
    inputs = [y, call.program.integers(f"{call.name}/padding", padding)]
    return call.program.emit("MIRROR_PAD", inputs, shape, call.name, mode="REFLECT")
