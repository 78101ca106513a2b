"""Gather with constant indices: a slice where they count up evenly, else GATHER."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.layout import Value, reshape
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call

from .slicing import strided_slice


@translates("Gather")
def gather(call: Call) -> None:
    """Values at the indices along one axis; a single index without axes removes the axis."""
    indices = call.constant(1, "indices")
    x = call.value()
    axis = int(call.attribute("axis", 0)) % len(x.order)
    place = x.axis(axis)
    size = x.tensor.shape[place]
    if indices.ndim > 1 or indices.size == 0:
        call.refuse(f"indices of shape {list(indices.shape)} are not supported", "use a list of indices")
    if indices.min() < -size or indices.max() >= size:
        call.refuse(f"its indices leave an axis of {size}", "use indices within the axis")
    taken = np.where(indices < 0, indices + size, indices).ravel()
    step = int(taken[1] - taken[0]) if taken.size > 1 else 1
    if step > 0 and np.all(np.diff(taken) == step):
        y = strided_slice(call.program, x.tensor, {place: (int(taken[0]), step, taken.size)}, call.name)
    else:
        shape = [taken.size if i == place else n for i, n in enumerate(x.tensor.shape)]
        inputs = [x.tensor, call.program.integers(call.input_name(1), taken)]
        y = call.program.emit("GATHER", inputs, shape, call.name, axis=place)
    value = Value(y, x.order)
    if indices.ndim == 0:
        value = reshape(call.program, value, [n for a, n in enumerate(value.shape) if a != axis], f"{call.name}/one")
    call.result(value)
