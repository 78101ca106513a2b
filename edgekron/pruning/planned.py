"""Pruned layers in plans and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from edgekron.planning.plan import CompressionPlan, LayerPlan

from .groups import ChannelStructure

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

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


def pruned_rows(
    rows: Mapping[str, dict[str, object]], before: Mapping[str, Layer], after: Mapping[str, Layer], pruning: Pruning
) -> None:
    """Adds to the report's rows the channels left by pruning, the cost, and the error after the repair."""
    for name, row in rows.items():
        old, new = before[name], after[name]
        if name in pruning.kept:
            row["method"] = pruning.kept[name][1]
        if new.dense_parameters < old.dense_parameters or new.dense_macs < old.dense_macs:
            outputs, inputs = _counts(new, old, 0), _counts(new, old, 1)
            row["channels"] = {"outputs": outputs, "inputs": inputs}
            row["compressed"] = {"macs": new.dense_macs, "parameters": new.dense_parameters}
            row["reason"] = f"makes {outputs[0]} of {outputs[1]} channels, reads {inputs[0]} of {inputs[1]}"
        if name in pruning.repairs:
            row.update(asdict(pruning.repairs[name]))


def _counts(new: Layer, old: Layer, axis: int) -> list[int]:
    """[left, of] channels along an axis of the kernel."""
    groups = (new.groups, old.groups) if axis else (1, 1)
    return [layer.kernel_shape[axis] * count for layer, count in zip((new, old), groups, strict=True)]
