"""Takes channels out of a hub's graph, and with them every entry of a constant that belongs to a channel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.hub import kept_channels
from edgekron.graph.identity import KEPT_KEY, REMOVED_KEY

from .channels import constant
from .groups import ChannelStructure, prunable

if TYPE_CHECKING:
    from edgekron.graph import Hub

    from .channels import Channels


def remove(hub: Hub, removed: Mapping[str, Sequence[int]]) -> Hub:
    """A copy of ``hub`` without the output channels ``removed`` of each layer, and without those tied to them.

    The layers are the first ones of their groups. Later layers lose the part of the removed channels; see ``repair``.
    Raises ``UserError``, and leaves the hub as it is, for a layer that cannot be pruned, or not alone, or that would be
    left without a channel.
    """
    result = hub.copy()
    structure = ChannelStructure(result)
    channels = structure.channels
    gone: set[int] = set()
    for name, places in removed.items():
        group = prunable(structure, name)
        kept = np.setdiff1d(np.arange(len(group.units)), np.asarray(places, np.int64))
        for part in (np.arange(len(group.units)), *group.parts):
            if not len(np.intersect1d(kept, part)):
                raise UserError(f"layer {name} would be left without a channel; keep at least one of {len(part)}.")
        gone |= set(group.units[np.asarray(places, np.int64)].tolist())
    if gone:
        _cut(channels, gone)
        _remember(result, structure, gone)
        _note(result, removed)
    return result


def _cut(channels: Channels, gone: set[int]) -> None:
    def alive(units: np.ndarray) -> np.ndarray:
        return ~np.isin(channels.roots(units), list(gone))

    arrays: dict[tuple[ir.Node, int], np.ndarray] = {}
    for one in channels.axes:
        keep = alive(one.units)
        if keep.all():
            continue
        array = arrays.get((one.node, one.index))
        if array is None:
            array = constant(one.node.inputs[one.index])
        if array is None:
            raise AssertionError("only axes of constants are noted")
        arrays[one.node, one.index] = np.compress(keep, array, axis=one.axis)
    for (node, index), array in arrays.items():
        channels.replace(node, index, array)
    for edit in channels.edits:
        edit(alive)
    for value, units in channels.values():
        keep = alive(units)
        if not keep.all() and value.shape is not None:
            value.shape = ir.Shape([value.shape[0], int(keep.sum()), *list(value.shape)[2:]])


def _remember(hub: Hub, structure: ChannelStructure, gone: set[int]) -> None:
    counts = kept_channels(hub.model)
    for group in structure.groups:
        left = sum(root not in gone for root in group.units.tolist())
        if left < len(group.units):
            counts |= {name: [left, counts.get(name, [0, len(group.units)])[1]] for name in group.layers}
    hub.model.metadata_props[KEPT_KEY] = json.dumps(counts)


def _note(hub: Hub, removed: Mapping[str, Sequence[int]]) -> None:
    """Notes a hash of all channels removed so far: two networks with as many channels may have kept others."""
    places = {name: sorted(map(int, removed[name])) for name in sorted(removed) if len(removed[name])}
    before = hub.model.metadata_props.get(REMOVED_KEY, "")
    hub.model.metadata_props[REMOVED_KEY] = hashlib.sha256(f"{before} {json.dumps(places)}".encode()).hexdigest()[:16]
