"""Expand and Tile: BROADCAST_TO and TILE."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.layout import Value, reshape
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call


@translates("Expand")
def expand(call: Call) -> None:
    """Repeats axes of size one; a size of one in the target keeps the input's size."""
    x = call.value(kinds=ANY)
    target = call.vector(1, "shape") or []
    shape = np.broadcast_shapes(x.shape, tuple(target))
    if len(shape) > len(x.order):
        x = reshape(call.program, x, (1,) * (len(shape) - len(x.order)) + x.shape, f"{call.name}/rank")
    if shape == x.shape:
        call.result(Value(x.tensor, x.order))
        return
    wide = [shape[a] for a in x.order]
    inputs = [x.tensor, call.program.integers(f"{call.name}/shape", wide)]
    call.finish(call.program.emit("BROADCAST_TO", inputs, wide, call.name), x.order)


@translates("Tile")
def tile(call: Call) -> None:
    """Repeats the whole input along each axis."""
    x = call.value(kinds=ANY)
    repeats = [int(n) for n in call.constant(1, "repeats").ravel()]
    if all(n == 1 for n in repeats):
        call.result(x)
        return
    times = [repeats[a] for a in x.order]
    shape = [n * t for n, t in zip(x.tensor.shape, times, strict=True)]
    inputs = [x.tensor, call.program.integers(f"{call.name}/repeats", times)]
    call.finish(call.program.emit("TILE", inputs, shape, call.name), x.order)
