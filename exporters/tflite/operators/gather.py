"""Gather, GatherND and GatherElements with constant indices: a slice if the indices count up evenly, else GATHER."""

from __future__ import annotations

import math

import numpy as np

from edgekron.exporters.tflite.layout import Value, reshape
from edgekron.exporters.tflite.program import Program, Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call

from .slicing import strided_slice


@translates("Gather")
def gather(call: Call) -> None:
    """Values at the indices along one axis, which is replaced by the axes of the indices."""
    indices = call.constant(1, "indices")
    x = call.value(kinds=ANY)
    axis = int(call.attribute("axis", 0)) % len(x.order)
    taken = within(call, indices, x.shape[axis])
    y = Value(take(call.program, x.tensor, x.axis(axis), taken.ravel(), call.name, call.input_name(1)), x.order)
    if indices.ndim != 1:
        shape = y.shape
        y = reshape(call.program, y, (*shape[:axis], *indices.shape, *shape[axis + 1 :]), f"{call.name}/axes")
    call.result(y)


@translates("GatherND")
def gather_nd(call: Call) -> None:
    """Values, or slices of the last axes, at tuples of indices of the first axes, by GATHER along these as one axis."""
    indices = call.constant(1, "indices")
    if call.attribute("batch_dims", 0):
        call.refuse("it gathers by batch", "gather with batch_dims=0")
    rank, depth = call.rank(), indices.shape[-1]
    x = call.value(0, tuple(range(rank)), ANY)
    shape = x.shape
    columns = [within(call, indices[..., i], shape[i]) for i in range(depth)]
    flat = np.ravel_multi_index(columns, shape[:depth])
    rows = call.program.reshape(x.tensor, (math.prod(shape[:depth]), *shape[depth:]), f"{call.name}/rows")
    y = take(call.program, rows, 0, flat.ravel(), call.name, call.input_name(1))
    result = (*indices.shape[:-1], *shape[depth:])
    call.finish(call.program.reshape(y, result, f"{call.name}/axes"), tuple(range(len(result))))


@translates("GatherElements")
def gather_elements(call: Call) -> None:
    """One value for each index: along one axis at the index, along all others at the index's own place."""
    indices = call.constant(1, "indices")
    rank = call.rank()
    x = call.value(0, tuple(range(rank)), ANY)
    axis = int(call.attribute("axis", 0)) % rank
    places: list[np.ndarray] = list(np.indices(indices.shape))
    places[axis] = within(call, indices, x.shape[axis])
    flat = np.ravel_multi_index(places, x.shape)
    values = call.program.reshape(x.tensor, (math.prod(x.shape),), f"{call.name}/values")
    y = take(call.program, values, 0, flat.ravel(), call.name, call.input_name(1))
    call.finish(call.program.reshape(y, indices.shape, f"{call.name}/axes"), tuple(range(rank)))


def take(program: Program, x: Tensor, place: int, indices: np.ndarray, name: str, indices_name: str) -> Tensor:
    """Values of ``x`` at ``indices``, none of them negative, along one axis of the tensor."""
    step = int(indices[1] - indices[0]) if indices.size > 1 else 1
    if step > 0 and np.all(np.diff(indices) == step):
        return strided_slice(program, x, {place: (int(indices[0]), step, indices.size)}, name)
    shape = [indices.size if i == place else n for i, n in enumerate(x.shape)]
    inputs = [x, program.integers(indices_name, indices)]
    return program.emit("GATHER", inputs, shape, name, axis=place)


def within(call: Call, indices: np.ndarray, size: int) -> np.ndarray:
    """Indices from the front; refuses those outside an axis of ``size``."""
    if indices.size == 0:
        call.refuse(f"its indices {list(indices.shape)} are none", "remove the node")
    if indices.min() < -size or indices.max() >= size:
        call.refuse(f"its indices leave an axis of {size}", "use indices within the axis")
    return np.where(indices < 0, indices + size, indices)
