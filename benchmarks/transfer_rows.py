"""The finished steps of ``transfer.py``: what its lines are called, and where they and their networks lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("kronecker", "low-rank", "tt", "tr", "tucker")
#: A thinner network in place of a compressed one; it has the last step alone.
DISTILLATION = "distillation"
STEPS = ("weights", "means", "energy", "calibrated", "reconstructed", "transferred")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def folder_of(runs: Path, key: dict[str, Any]) -> Path:
    """Where the networks of a key are."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    return runs / f"{key['model']}-{key['family']}-{key['ratio']:g}-{digest}"


def latency_path(path: Path) -> Path:
    """Beside a file of lines, the file of what was measured of their networks."""
    return path.with_name(f"{path.stem}-latency.json")
