"""The folder that ``edgekron compress`` writes: everything later commands need, nothing pickled.

hub.onnx              the network, each factorized layer one node; runs in ONNX Runtime as it is
plan.toml             the choice for each layer; edit it and apply it again with --plan
report.json           costs, errors and choices by layer, and the identity of the network in hub.onnx
training.jsonl        after training: its log, one JSON object for each epoch
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekron.errors import UserError
from edgekron.files import new_folder
from edgekron.graph import Hub
from edgekron.graph.hub import kept_channels
from edgekron.planning.plan import CompressionPlan

from .compressor import Compression
from .report import CompressionReport

HUB, PLAN, REPORT, TRAINING = "hub.onnx", "plan.toml", "report.json", "training.jsonl"
#: All that a folder of ours may hold, so that it can be replaced; the last was written by EdgeKron 0.1.
FILES = frozenset((HUB, PLAN, REPORT, TRAINING, "factors.safetensors"))


def write(compression: Compression, folder: str | Path, *, training: str | None = None, force: bool = False) -> None:
    """Writes the folder, with the log ``training`` if there is one, whole or not at all.

    Raises ``UserError`` when the folder exists and ``force`` is not set.
    """
    report = replace(compression.report, identity=compression.hub.identity.digest)
    with new_folder(folder, force, replaces=FILES) as path:
        compression.hub.save(path / HUB)
        (path / PLAN).write_text(compression.plan.to_toml())
        (path / REPORT).write_text(json.dumps(report.to_json(), indent=2) + "\n")
        if training is not None:
            (path / TRAINING).write_text(training)


def is_artifact(path: str | Path) -> bool:
    """Whether ``path`` is a folder that ``write`` made."""
    return (Path(path) / HUB).is_file() and (Path(path) / PLAN).is_file()


def read(folder: str | Path) -> Compression:
    """What a folder holds.

    Raises ``UserError`` when the folder is none of ours, damaged, or its hub is not the network of its report.
    """
    found = Compression(read_hub(folder), read_plan(folder), read_report(folder))
    # Folders of EdgeKron 0.1 do not say it.
    if found.report.identity not in ("", found.hub.identity.digest):
        raise UserError(
            f"{Path(folder) / HUB} is not the network that {REPORT} beside it is of; compress the model again."
        )
    return found


def read_compressed(folder: str | Path) -> Compression:
    """``read``, for work that only compressed networks have. Raises ``UserError`` also when nothing is compressed."""
    found = read(folder)
    if not any(layer.factorized for layer in found.hub.layers()) and not kept_channels(found.hub.model):
        raise UserError(f"{folder} has no factorized or pruned layer; compress the network first.")
    return found


def read_hub(folder: str | Path) -> Hub:
    """The hub of a folder. Raises ``UserError`` when the folder is none of ours or damaged."""
    if not is_artifact(folder):
        raise UserError(f"{folder} is not a folder that 'edgekron compress' wrote; it lacks {HUB} or {PLAN}.")
    return Hub.open(Path(folder) / HUB)


def read_plan(folder: str | Path) -> CompressionPlan:
    """The plan of a folder. Raises ``UserError``."""
    return CompressionPlan.read(Path(folder) / PLAN)


def read_report(folder: str | Path) -> CompressionReport:
    """The report of a folder. Raises ``UserError`` when it cannot be read."""
    path = Path(folder) / REPORT
    try:
        report: object = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); compress the model again.") from None
    return CompressionReport.from_json(report if isinstance(report, Mapping) else {}, str(path))


def with_hub(compression: Compression, hub: Hub, facts: Mapping[str, Any]) -> Compression:
    """The same plan with other weights; ``facts`` are added to what the report says of training, one entry a run.

    The errors of layers were of the weights before, so they are left out.
    """
    report = replace(
        compression.report,
        layers={name: row.without_errors() for name, row in compression.report.layers.items()},
        training=(*compression.report.training, dict(facts)),
        identity=hub.identity.digest,
    )
    return Compression(hub, compression.plan, report)
