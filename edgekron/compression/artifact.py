"""The folder that ``edgekron compress`` writes: everything later commands need, nothing pickled.

hub.onnx              the network, each factorized layer one node; runs in ONNX Runtime as it is
plan.toml             what was chosen for each layer; edit it and apply it again with --plan
factors.safetensors   the factors and biases by layer, for torch: "LAYER.factor0", ..., "LAYER.bias"
report.json           costs, errors and choices by layer
training.jsonl        after training: its log, one JSON object for each epoch
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from edgekron.errors import UserError
from edgekron.files import new_folder
from edgekron.graph import Hub
from edgekron.planning.plan import CompressionPlan

from .compressor import Compression

HUB, PLAN, FACTORS, REPORT = "hub.onnx", "plan.toml", "factors.safetensors", "report.json"
TRAINING = "training.jsonl"
FILES = frozenset((HUB, PLAN, FACTORS, REPORT, TRAINING))


def write(compression: Compression, folder: str | Path, *, training: str | None = None, force: bool = False) -> None:
    """Writes the folder, with the log ``training`` if there is one, whole or not at all.

    Raises ``UserError`` when it exists and ``force`` is not set.
    """
    factors: dict[str, np.ndarray] = {}
    for layer in compression.hub.layers():
        if layer.factorized is None:
            continue
        tensors = {f"factor{i}": t for i, t in enumerate(layer.factorized.tensors)}
        if layer.factorized.bias is not None:
            tensors["bias"] = layer.factorized.bias
        factors |= {f"{layer.name}.{key}": np.ascontiguousarray(value) for key, value in tensors.items()}
    plan = compression.plan.to_toml()
    compression.hub.plan_hash = hashlib.sha256(plan.encode()).hexdigest()
    with new_folder(folder, force, replaces=FILES) as path:
        compression.hub.save(path / HUB)
        (path / PLAN).write_text(plan)
        (path / FACTORS).write_bytes(safetensors.numpy.save(factors))
        (path / REPORT).write_text(json.dumps(compression.report, indent=2) + "\n")
        if training is not None:
            (path / TRAINING).write_text(training)


def is_artifact(path: str | Path) -> bool:
    """Whether ``path`` is a folder that ``write`` made."""
    return (Path(path) / HUB).is_file() and (Path(path) / PLAN).is_file()


def read_hub(folder: str | Path) -> Hub:
    """The hub of a folder. Raises ``UserError`` when the folder is none of ours or damaged."""
    if not is_artifact(folder):
        raise UserError(f"{folder} is not a folder that 'edgekron compress' wrote; it lacks {HUB} or {PLAN}.")
    return Hub.open(Path(folder) / HUB)


def read_plan(folder: str | Path) -> CompressionPlan:
    """The plan of a folder. Raises ``UserError``."""
    return CompressionPlan.read(Path(folder) / PLAN)


def read_report(folder: str | Path) -> dict[str, Any]:
    """The report of a folder. Raises ``UserError`` when it cannot be read."""
    path = Path(folder) / REPORT
    try:
        report: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); compress the model again.") from None
    if not isinstance(report, dict) or not {"layers", "totals", "calibration_images"} <= set(report):
        raise UserError(f"{path} is not a report that 'edgekron compress' wrote; compress the model again.")
    return dict(report)
