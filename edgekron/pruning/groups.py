"""Groups of layers whose output channels can only be removed together, and the cost of what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError

from .operators import trace

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

    from .channels import Channels


@dataclass(frozen=True, eq=False)
class Group:
    """Layers tied to each other: removing an output channel of one removes one of each.

    ``units`` [n] are the roots of the channels of the first layer, which names the group. ``readers`` are the layers
    that read these channels, each with the roots of its whole input. ``reason`` says why no channel can be removed, and
    is None for a group that can be pruned. ``made`` gives for each layer of the group the output that each unit is [n].
    ``parts`` are sets of places among the units; one place of each set has to stay.
    """

    layers: tuple[str, ...]
    units: np.ndarray
    readers: Mapping[str, np.ndarray]
    reason: str | None
    made: Mapping[str, np.ndarray]
    parts: tuple[np.ndarray, ...] = ()

    def columns(self, reader: str) -> tuple[np.ndarray, np.ndarray]:
        """Which of the group's channels a layer reads [n], and their places among its inputs [n, m]."""
        roots = self.readers[reader]
        found = [np.flatnonzero(roots == unit) for unit in self.units]
        places = np.array([i for i, columns in enumerate(found) if len(columns)], np.int64)
        return places, np.stack([found[i] for i in places])

    @property
    def name(self) -> str:
        """The first layer's name."""
        return self.layers[0]


@dataclass(frozen=True)
class Footprint:
    """MACs and weights of a layer, both proportional to the channels left of its inputs and of its outputs (roots)."""

    macs: int
    parameters: int
    inputs: np.ndarray | None
    outputs: np.ndarray | None


class ChannelStructure:
    """The channels of a hub as groups, and its cost for any choice of channels."""

    def __init__(self, hub: Hub) -> None:
        self.channels = trace(hub.model)
        layers = hub.layers()
        self.groups = _groups(self.channels, layers)
        self._footprints = {layer.name: self._footprint(layer) for layer in layers}

    def group(self, layer: str) -> Group | None:
        """The group that a layer belongs to; None for a layer that makes no channels of its own."""
        return next((group for group in self.groups if layer in group.layers), None)

    def alive(self, units: np.ndarray, removed: set[int]) -> np.ndarray:
        """Which of ``units`` stay [n] when the roots ``removed`` go."""
        return ~np.isin(self.channels.roots(units), list(removed))

    def costs(self, removed: set[int]) -> dict[str, int]:
        """MACs and parameters of all layers without the units of the roots ``removed``."""
        macs = parameters = 0
        for one in self._footprints.values():
            share = _share(one.inputs, removed) * _share(one.outputs, removed)
            macs += round(one.macs * share)
            parameters += round(one.parameters * share)
        return {"macs": macs, "parameters": parameters}

    def _footprint(self, layer: Layer) -> Footprint:
        inputs, outputs = self.channels.layers.get(layer.name, (None, None))
        return Footprint(
            layer.dense_macs,
            layer.dense_parameters,
            None if inputs is None else self.channels.roots(inputs),
            None if outputs is None else self.channels.roots(outputs),
        )


def prunable(structure: ChannelStructure, name: str) -> Group:
    """The group that the layer ``name`` stands for. Raises ``UserError`` for a layer that cannot be pruned alone."""
    group = structure.group(name)
    if group is None:
        raise UserError(f"layer {name} makes no channels of its own; prune the layer that it reads.")
    if group.reason is not None:
        raise UserError(f"layer {name} cannot be pruned: it {group.reason}.")
    if group.name != name:
        others = ", ".join(layer for layer in group.layers if layer != name)
        raise UserError(
            f"layer {name} cannot be pruned alone: it is tied to {others}; say what is to stay at {group.name}, which "
            "stands for all of them."
        )
    return group


def _share(roots: np.ndarray | None, removed: set[int]) -> float:
    if roots is None or not removed:
        return 1.0
    return float((~np.isin(roots, list(removed))).mean())


def _groups(channels: Channels, layers: list[Layer]) -> tuple[Group, ...]:
    makers = {name: channels.roots(made) for name, made in channels.makers.items()}
    frozen = channels.frozen()
    owner: dict[int, str] = {}
    # Layers that share a root, however indirectly, are one group: named by the first of them.
    named = {name: name for name in makers}
    for name, roots in makers.items():
        firsts = {_first(named, owner[root]) for root in roots.tolist() if root in owner} | {_first(named, name)}
        first = min(firsts, key=list(makers).index)
        for other in firsts:
            named[other] = first
        owner |= {root: first for root in roots.tolist() if root not in owner}
    members: dict[str, list[str]] = {}
    for name in makers:
        members.setdefault(_first(named, name), []).append(name)
    readers = {name: channels.roots(pair[0]) for name, pair in channels.layers.items() if pair[0] is not None}
    order = [layer.name for layer in layers]
    for layer in layers:
        if not layer.has_kernel:
            for known in (readers, makers):
                for root in known[layer.name].tolist() if layer.name in known else ():
                    frozen.setdefault(root, f"depends on {layer.name}, whose kernel is not a constant one of images")
    values = [channels.roots(units) for _, units in channels.values()]
    return tuple(_group(sorted(names, key=order.index), makers, readers, frozen, values) for names in members.values())


def _first(named: Mapping[str, str], name: str) -> str:
    while named[name] != name:
        name = named[name]
    return name


def _group(
    names: list[str],
    makers: Mapping[str, np.ndarray],
    readers: Mapping[str, np.ndarray],
    frozen: Mapping[int, str],
    values: list[np.ndarray],
) -> Group:
    units = makers[names[0]]
    whole = set(units.tolist())
    reading = {name: roots for name, roots in readers.items() if whole & set(roots.tolist())}
    reason = next((frozen[root] for name in names for root in makers[name].tolist() if root in frozen), None)
    if reason is None and len(whole) < len(units):
        reason = "has channels that are tied to each other"
    uneven = [name for name in names[1:] if sorted(makers[name].tolist()) != sorted(whole)]
    if reason is None and uneven:
        reason = f"has only a part of its channels tied to those of {', '.join(uneven)}"
    if reason is None and len(units) == 1:
        reason = "has a single channel"
    sizes = {name: np.unique(roots[np.isin(roots, units)], return_counts=True)[1] for name, roots in reading.items()}
    if reason is None and (mixed := [name for name, counts in sizes.items() if len(set(counts.tolist())) > 1]):
        reason = f"is read by {', '.join(mixed)}, some of its channels more often than others"
    if reason is None and not reading:
        reason = "is read by no layer"
    place = {root: i for i, root in enumerate(units.tolist())}
    parts = {
        frozenset(place[root] for root in found.tolist())
        for found in values
        if whole.issuperset(found.tolist()) and not whole.issubset(found.tolist())
    }
    made = {name: _positions(makers[name], units) for name in names} if reason is None else {}
    return Group(tuple(names), units, reading, reason, made, tuple(np.array(sorted(part)) for part in parts))


def _positions(roots: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The place of each of ``units`` among ``roots``."""
    order = roots.argsort()
    return np.asarray(order[np.searchsorted(roots, units, sorter=order)])
