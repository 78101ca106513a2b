"""``edgekron models``: the bundled networks."""

from __future__ import annotations

import argparse
from typing import Any

from .shared.output import count, print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Counts every bundled network and shows the accuracy of those that are trained."""
    import torch

    from edgekron.models import NETWORKS, build, facts
    from edgekron.modules.cost import DEFINITIONS, module_cost

    rows: list[dict[str, Any]] = []
    for name, entry in NETWORKS.items():
        with torch.device("meta"):
            cost = module_cost(build(name), entry.input_shape)
        trained = facts(name)
        rows.append(
            {
                "name": name,
                "about": entry.about,
                "input": list(entry.input_shape),
                "parameters": cost.parameters,
                "macs": cost.macs,
                "data": trained["data"] if trained else None,
                "top1": trained["top1"] if trained else None,
            }
        )
    if arguments.json:
        print_json({"definitions": DEFINITIONS, "models": rows})
        return 0
    print_table(
        "Bundled networks",
        ["<name", "<about", "input", "parameters", "MACs", "<trained on", "top-1 %"],
        [
            [
                row["name"],
                row["about"],
                "x".join(map(str, row["input"])),
                f"{row['parameters']:,}",
                count(row["macs"]),
                row["data"] or "",
                row["top1"] if row["top1"] is not None else "",
            ]
            for row in rows
        ],
        caption="; ".join(f"{key}: {text}" for key, text in DEFINITIONS.items()),
    )
    return 0
