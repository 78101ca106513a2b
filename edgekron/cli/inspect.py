"""``edgekron inspect``: the layers of a model, their cost, and what can be factorized."""

from __future__ import annotations

import argparse
import math

from ._output import count, print_json, print_table, say
from ._sources import add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL"""
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints one row for each layer."""
    from edgekron.compressor import cost
    from edgekron.graph.activations import peak_activations

    hub = open_model(arguments.model, arguments).hub
    rows = []
    for layer in hub.layers():
        rows.append(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "kernel": list(layer.kernel.shape) if layer.kernel is not None else None,
                "groups": layer.groups,
                "stride": list(layer.geometry.stride),
                "output": list(layer.output_size),
                **cost(layer),
                "factors": layer.factorized.network.factors if layer.factorized else None,
                "ranks": {a: n for a, n in layer.factorized.network.sizes.items() if a[0] == "r"}
                if layer.factorized
                else None,
                "frozen": layer.frozen_reason,
            }
        )
    peak, where = peak_activations(hub)
    totals = {key: sum(int(row[key]) for row in rows) for key in ("macs", "parameters")}
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
                count(float(row["macs"])),
                _state(row),
            ]
            for row in rows
        ],
        caption=f"{totals['parameters']:,} weights, {count(totals['macs'])} MACs for one image; MACs and weights of "
        "convolutions and fully connected layers, without bias",
    )
    say(f"peak activation memory: {peak / 1024:.0f} KiB (float32, one image) at {where}")
    return 0


def _state(row: dict[str, object]) -> str:
    if row["frozen"]:
        return f"stays dense: it {row['frozen']}"
    if row["factors"]:
        ranks = row["ranks"] if isinstance(row["ranks"], dict) else {}
        return f"factorized, rank {math.prod(ranks.values())}"
    return "can be factorized"
