"""Rules for operators that put channels in other places: how units move, and which constants a removal changes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekron.graph.values import sizes_behind_batch

from .channels import Alive, Channels, constant

Rule = Callable[[Channels, ir.Node], None]


def _refuse(channels: Channels, node: ir.Node) -> None:
    channels.refuse(node, "is put among other channels or pixels")


def _axis(node: ir.Node, default: int) -> int | None:
    """The axis of a node, counted from the first."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    return node.attributes.get_int("axis", default) % len(value.shape)


def _reshape(channels: Channels, node: ir.Node) -> None:
    value, output = node.inputs[0], node.outputs[0]
    units = channels.of(value)
    before = _sizes(value)
    after = _sizes(output)
    wanted = constant(node.inputs[1]) if node.op_type == "Reshape" else None
    if units is None or before is None or after is None or (node.op_type == "Reshape" and wanted is None):
        _refuse(channels, node)
        return
    flat = np.repeat(units, math.prod(before[1:]))
    if flat.size != math.prod(after):
        _refuse(channels, node)
        return
    rows = flat.reshape(after[0], -1)
    if (rows != rows[:, :1]).any():
        _refuse(channels, node)
        return
    moved = rows[:, 0]
    channels.give(output, moved)
    if wanted is not None and wanted[1] > 0:

        def resize(alive: Alive) -> None:
            shape = wanted.copy()
            shape[1] = int(alive(moved).sum())
            channels.replace(node, 1, shape)

        channels.edits.append(resize)


def _sizes(value: ir.Value | None) -> list[int] | None:
    """The sizes behind the batch; None if one of these is not known, or the batch is not open."""
    if value is None or value.shape is None or len(value.shape) < 2 or isinstance(value.shape[0], int):
        return None
    return sizes_behind_batch(value)


def _transpose(channels: Channels, node: ir.Node) -> None:
    units = channels.of(node.inputs[0])
    order = node.attributes.get_ints("perm", ())
    if units is None or list(order[:2]) != [0, 1]:
        _refuse(channels, node)
        return
    channels.give(node.outputs[0], units)


def _concat(channels: Channels, node: ir.Node) -> None:
    axis = _axis(node, 1)
    found = []
    for value in node.inputs:
        units, array = channels.of(value), constant(value)
        if array is not None and axis == 1 and array.ndim > 1:
            units = channels.new(array.shape[1])
            channels.freeze(units, "is a constant")
        if units is None or not axis:
            _refuse(channels, node)
            return
        found.append(units)
    if axis == 1:
        channels.give(node.outputs[0], np.concatenate(found))
        return
    if len({len(units) for units in found}) > 1:
        _refuse(channels, node)
        return
    for other in found[1:]:
        channels.tie(found[0], other)
    channels.give(node.outputs[0], found[0])


def _split(channels: Channels, node: ir.Node) -> None:
    units, axis = channels.of(node.inputs[0]), _axis(node, 0)
    widths = [value.shape[1] if value.shape is not None and len(value.shape) > 1 else None for value in node.outputs]
    if units is None or not axis:
        _refuse(channels, node)
        return
    if axis > 1:
        for value in node.outputs:
            channels.give(value, units)
        return
    known = [width for width in widths if isinstance(width, int)]
    if len(known) < len(widths) or sum(known) != len(units):
        _refuse(channels, node)
        return
    parts = np.split(units, np.cumsum(known)[:-1])
    for value, part in zip(node.outputs, parts, strict=True):
        channels.give(value, part)

    def resize(alive: Alive) -> None:
        node.attributes.pop("num_outputs", None)
        channels.replace(node, 1, np.array([int(alive(part).sum()) for part in parts], np.int64))

    channels.edits.append(resize)


def _slice(channels: Channels, node: ir.Node) -> None:
    value = node.inputs[0]
    units = channels.of(value)
    given = [constant(node.inputs[i]) if i < len(node.inputs) else None for i in range(1, 5)]
    starts, ends, axes, steps = given
    if units is None or value is None or value.shape is None or starts is None or ends is None:
        _refuse(channels, node)
        return
    missing = [i for i in (3, 4) if i < len(node.inputs) and node.inputs[i] is not None and given[i - 1] is None]
    axes = np.arange(len(starts)) if axes is None else axes % len(value.shape)
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    places = [i for i, axis in enumerate(axes.tolist()) if axis == 1]
    if missing or 0 in axes or any(steps[i] != 1 for i in places):
        _refuse(channels, node)
        return
    if not places:
        channels.give(node.outputs[0], units)
        return
    place = places[0]
    first, last, _ = slice(int(starts[place]), int(ends[place])).indices(len(units))
    channels.give(node.outputs[0], units[first:last])

    def resize(alive: Alive) -> None:
        new_starts, new_ends = starts.copy(), ends.copy()
        new_starts[place] = int(alive(units[:first]).sum())
        new_ends[place] = new_starts[place] + int(alive(units[first:last]).sum())
        channels.replace(node, 1, new_starts)
        channels.replace(node, 2, new_ends)

    channels.edits.append(resize)


def _gather(channels: Channels, node: ir.Node) -> None:
    units, axis, indices = channels.of(node.inputs[0]), _axis(node, 0), constant(node.inputs[1])
    if units is None or not axis or indices is None or (axis == 1 and indices.ndim != 1):
        _refuse(channels, node)
        return
    if axis > 1:
        channels.give(node.outputs[0], units)
        return
    moved = units[indices]
    channels.give(node.outputs[0], moved)

    def reindex(alive: Alive) -> None:
        places = alive(units).cumsum() - 1
        channels.replace(node, 1, places[indices % len(units)][alive(moved)].astype(indices.dtype))

    channels.edits.append(reindex)


def _pad(channels: Channels, node: ir.Node) -> None:
    value = node.inputs[0]
    units = channels.of(value)
    pads, axes = constant(node.inputs[1]), constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if units is None or value is None or value.shape is None or pads is None:
        _refuse(channels, node)
        return
    rank = len(value.shape)
    order = list(range(rank)) if axes is None else [axis % rank for axis in axes.tolist()]
    full = np.zeros((2, rank), np.int64)
    full[:, order] = pads.reshape(2, -1)
    before, after = (int(count) for count in full[:, 1])
    mode = node.attributes.get_string("mode", "constant")
    if full[:, 0].any() or min(before, after) < 0 or (mode != "constant" and before + after):
        _refuse(channels, node)
        return
    ends = channels.new(before), channels.new(after)
    channels.give(node.outputs[0], np.concatenate([ends[0], units, ends[1]]))
    if before + after:
        place = order.index(1)

        def resize(alive: Alive) -> None:
            new = pads.reshape(2, -1).copy()
            new[:, place] = [int(alive(end).sum()) for end in ends]
            channels.replace(node, 1, new.reshape(-1))

        channels.edits.append(resize)


def _resize_image(channels: Channels, node: ir.Node) -> None:
    value = node.inputs[0]
    units = channels.of(value)
    scales, sizes = (constant(node.inputs[i]) if i < len(node.inputs) else None for i in (2, 3))
    axes = node.attributes.get_ints("axes", ())
    given = scales if scales is not None and scales.size else sizes
    if units is None or value is None or value.shape is None or given is None:
        _refuse(channels, node)
        return
    rank = len(value.shape)
    order = [axis % rank for axis in axes] or list(range(rank))
    if 1 not in order:
        channels.give(node.outputs[0], units)
        return
    place = order.index(1)
    if given[place] != (1 if given is scales else len(units)):
        _refuse(channels, node)
        return
    channels.give(node.outputs[0], units)
    if given is not scales:

        def resize(alive: Alive) -> None:
            new = given.copy()
            new[place] = int(alive(units).sum())
            channels.replace(node, 3, new)

        channels.edits.append(resize)


RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize_image,
}
