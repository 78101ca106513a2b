"""Pruned layers in plans."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgekron.planning.plan import CompressionPlan, LayerPlan

from .groups import ChannelStructure

if TYPE_CHECKING:
    from edgekron.graph import Hub

    from .pruner import Pruning

#: The reason in the line of a layer that could lose channels and lost none.
_WHOLE = "all channels stay"


def pruned_plan(hub: Hub, pruning: Pruning, model: str, factorized: CompressionPlan | None) -> CompressionPlan:
    """The plan of a pruned network: ``factorized``, or one in which every layer stays dense, with its channels."""
    structure = ChannelStructure(hub)
    counts = {group.name: len(group.units) for group in structure.groups}
    lines: dict[str, LayerPlan] = {}
    for layer in hub.layers():
        line = factorized.layers[layer.name] if factorized else LayerPlan(reason=_reason(structure, layer.name))
        if layer.name in pruning.kept:
            kept, criterion = pruning.kept[layer.name]
            stays = f"{kept} of {counts[layer.name]} channels stay"
            reason = f"{stays}; {line.reason}" if factorized else stays
            line = replace(line, channels=kept, criterion=criterion, reason=reason)
        lines[layer.name] = line
    return CompressionPlan(model, lines)


def _reason(structure: ChannelStructure, name: str) -> str:
    group = structure.group(name)
    if group is None:
        return "its channels are those that it reads"
    if group.reason is not None:
        return f"not pruned: it {group.reason}" if group.name == name else f"not pruned: it is tied to {group.name}"
    return _WHOLE if group.name == name else f"its channels are tied to those of {group.name}"
