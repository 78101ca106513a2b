"""Prunes a hub: chooses the channels that go, takes them out, and repairs the layers that read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError
from edgekron.processes import Progress

from .criteria import CRITERIA, SIMILARITIES, find_orders
from .groups import ChannelStructure, prunable
from .order import Order
from .quotas import by_threshold, removed_units, to_ratios
from .removal import remove
from .repair import LayerRepair, repair

if TYPE_CHECKING:
    from edgekron.graph import Hub

#: The criterion in plans of channels that training has chosen.
LEARNT = "edp"
#: Other names of criteria.
ALIASES = {"qsfm": "qsfm-ssim"}


@dataclass(frozen=True)
class PruningSettings:
    """How to prune: whether any width will do, and whether later layers are repaired.

    With a ``similarity``, every channel of at least that similarity goes; None leaves the choice to ratios.
    """

    similarity: float | None = None
    any_width: bool = False
    repair: bool = True


@dataclass(frozen=True)
class Pruning:
    """A pruned hub; ``kept`` gives for each group's first layer how many channels it kept, and by which criterion.

    ``repaired`` says whether layers took over from removed channels, and ``repairs`` holds these layers by name.
    """

    hub: Hub
    kept: Mapping[str, tuple[int, str]]
    repaired: bool = True
    repairs: Mapping[str, LayerRepair] = field(default_factory=dict)


def prune(
    hub: Hub,
    criterion: str,
    settings: PruningSettings,
    *,
    ratios: Mapping[str, float],
    data: Sequence[np.ndarray],
    progress: Progress = lambda what, done, total: None,
) -> Pruning:
    """Prunes ``hub`` by one of the ``criteria`` so that its costs fall by ``ratios``, or by a similarity.

    ``data`` are batches float32 [n, C, H, W] of calibration images. Raises ``UserError`` for a network without a layer
    that can be pruned, a budget that cannot be reached, and a criterion that needs images and gets none; ``hub`` stays
    as it is.
    """
    structure = ChannelStructure(hub)
    if all(group.reason is not None for group in structure.groups):
        reasons = "; ".join(f"{group.name} {group.reason}" for group in structure.groups[:3])
        raise UserError(f"no layer of this network can be pruned: {reasons or 'it has none'}.")
    costs = tuple(ratios) or ("macs",)
    orders = find_orders(hub, structure, criterion, data, costs=costs, progress=progress)
    if settings.similarity is not None:
        if criterion not in SIMILARITIES:
            known = ", ".join(SIMILARITIES)
            raise UserError(f"{criterion} knows no similarity; give a ratio, or one of {known}.")
        if not math.isfinite(settings.similarity):
            raise UserError(f"a similarity of {settings.similarity} makes no sense; give a number.")
        counts = by_threshold(orders, settings.similarity, any_width=settings.any_width)
    else:
        counts = to_ratios(structure, orders, ratios, any_width=settings.any_width)
    chosen = {name: (count, criterion) for name, count in counts.items() if count < len(orders[name].group.units)}
    return _apply(hub, orders, chosen, settings.repair, data, progress)


def prune_as(
    hub: Hub,
    kept: Mapping[str, tuple[int, str]],
    *,
    data: Sequence[np.ndarray],
    repaired: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Pruning:
    """Prunes ``hub`` so that each layer of ``kept`` keeps a number of output channels, chosen by a criterion.

    Raises ``UserError`` for a layer that cannot be pruned, or not alone, or to that number; ``hub`` stays as it is.
    """
    structure = ChannelStructure(hub)
    kept = {name: (count, criterion_of(criterion) or criterion) for name, (count, criterion) in kept.items()}
    widths = {group.name: len(group.units) for group in structure.groups}
    # A plan may be applied again to what it made: then nothing is left to remove.
    kept = {name: line for name, line in kept.items() if line[0] != widths.get(name)}
    for name, (count, criterion) in kept.items():
        if criterion == LEARNT:
            raise UserError(
                f"the plan's channels of layer {name} were learnt by {LEARNT} together with its weights; take the "
                "folder that it wrote, or another criterion."
            )
        width = len(prunable(structure, name).units)
        if not 0 < count < width:
            raise UserError(f"layer {name} has {width} channels; {count} of them cannot stay.")
    orders: dict[str, Order] = {}
    for criterion in dict.fromkeys(criterion for _, criterion in kept.values()):
        only = frozenset(name for name, (_, one) in kept.items() if one == criterion)
        orders |= find_orders(hub, structure, criterion, data, only=only, progress=progress)
    return _apply(hub, orders, dict(kept), repaired, data, progress)


def _apply(
    hub: Hub,
    orders: Mapping[str, Order],
    kept: Mapping[str, tuple[int, str]],
    repaired: bool,
    data: Sequence[np.ndarray],
    progress: Progress,
) -> Pruning:
    gone = {name: orders[name].places[: len(orders[name].group.units) - count] for name, (count, _) in kept.items()}
    result = remove(hub, gone)
    repairs: dict[str, LayerRepair] = {}
    repaired = repaired and len(data) > 0 and bool(kept)
    if repaired:
        units = removed_units(orders, {name: count for name, (count, _) in kept.items()})
        repairs = repair(hub, result, units, data, progress)
    return Pruning(result, kept, repaired, repairs)


def criterion_of(name: str) -> str | None:
    """The criterion that a method's name stands for; None for a method that is no criterion."""
    full = ALIASES.get(name, name)
    return full if full in CRITERIA else None
