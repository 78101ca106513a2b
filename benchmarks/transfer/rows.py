"""The finished steps of an experiment: names, the file of lines, and the folders of networks."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.record import Row, digest_of

FAMILIES = ("kronecker", "low-rank", "tt", "tr", "tucker")
#: A thinner network in place of a compressed one; it has the last step alone.
DISTILLATION = "distillation"
STEPS = ("weights", "means", "energy", "calibrated", "reconstructed", "transferred")


def read(path: Path) -> list[Row]:
    """The lines of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def folder_of(runs: Path, key: Row) -> Path:
    """Where the networks of a key are."""
    return runs / f"{key['model']}-{key['family']}-{key['ratio']:g}-{digest_of(key)}"
