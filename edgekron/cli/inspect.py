"""``edgekron inspect``: the layers of a model, their costs, and the reason of each layer that cannot be factorized."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .shared.options import add_model, open_source
from .shared.output import count, print_json, print_table, say

if TYPE_CHECKING:
    from edgekron.graph import Layer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL"""
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints one row for each layer."""
    from edgekron.graph.activations import peak_activations
    from edgekron.graph.passes.dequantize import quantized_operators

    hub = open_source(arguments.model, arguments).hub
    rows = [_row(layer) for layer in hub.layers()]
    peak, where = peak_activations(hub)
    totals = {key: sum(row[key] for row in rows) for key in ("macs", "parameters")}
    if arguments.json:
        print_json({"layers": rows, "totals": totals, "peak_activation_bytes": peak, "peak_at": where})
        return 0
    print_table(
        f"{arguments.model}",
        ["<layer", "<kernel", "stride", "output", "parameters", "MACs", "<state"],
        [
            [
                row["layer"],
                "x".join(map(str, row["kernel"])) if row["kernel"] else "?",
                "x".join(map(str, row["stride"])),
                "x".join(map(str, row["output"])),
                f"{row['parameters']:,}",
                count(row["macs"]) if row["macs_known"] else "?",
                _state(row),
            ]
            for row in rows
        ],
        caption=f"{totals['parameters']:,} weights, {count(totals['macs'])} MACs for one image{_without(rows)}; "
        "MACs and weights of convolutions and fully connected layers, without bias",
    )
    if found := quantized_operators(hub.model):
        say(f"quantized already ({', '.join(found)}); --dequantize folds the network back to float")
    say(f"peak activation memory: {peak / 1024:.0f} KiB (float32, one image) at {where}")
    return 0


def _row(layer: Layer) -> dict[str, Any]:
    from edgekron.graph.cost import cost

    network = layer.factorized.network if layer.factorized else None
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "kernel": list(layer.kernel_shape) if layer.has_kernel else None,
        "groups": layer.groups,
        "stride": list(layer.geometry.stride),
        "output": list(layer.output_size),
        **asdict(cost(layer)),
        "factors": network.factors if network else None,
        "ranks": {axis: size for axis, size in network.sizes.items() if axis[0] == "r"} if network else None,
        "macs_known": layer.macs_known,
        "frozen": layer.frozen_reason,
    }


def _without(rows: list[dict[str, Any]]) -> str:
    unknown = [row["layer"] for row in rows if not row["macs_known"]]
    return f" without those of {', '.join(unknown)}, whose size is not known" if unknown else ""


def _state(row: dict[str, Any]) -> str:
    if row["frozen"]:
        return f"stays dense: it {row['frozen']}"
    if row["factors"]:
        return f"factorized, rank {math.prod(row['ranks'].values())}"
    return "can be factorized"
