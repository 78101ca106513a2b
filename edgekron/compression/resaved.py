"""A compressed folder as a module to train, and the trained module as a folder of the same kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.pruning import kept_channels

from . import artifact
from .compressor import Compression


def read(folder: str | Path) -> Compression:
    """What a folder holds. Raises ``UserError`` when it is none of ours, or nothing in it is compressed."""
    found = Compression(artifact.read_hub(folder), artifact.read_plan(folder), artifact.read_report(folder))
    if not any(layer.factorized for layer in found.hub.layers()) and not kept_channels(found.hub.model):
        raise UserError(f"{folder} has no factorized or pruned layer; compress the network first.")
    return found


def with_hub(compression: Compression, hub: Hub, facts: Mapping[str, Any]) -> Compression:
    """The same plan with other weights; ``facts`` are added to what the report says of training, one entry a run.

    What the report said of each layer's error was of the weights before, so it is left out.
    """
    layers = {
        name: {key: value for key, value in row.items() if key not in ("error", "fit", "tried", "degeneracy")}
        for name, row in compression.report["layers"].items()
    }
    training = [*compression.report.get("training", []), dict(facts)]
    return Compression(hub, compression.plan, {**compression.report, "layers": layers, "training": training})
