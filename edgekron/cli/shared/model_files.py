"""Shared by the commands that run model files: the files that they take, and the JSON that they write."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError
from edgekron.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.graph import NetworkInput


def model_files(names: Sequence[str]) -> list[Path]:
    """The names as paths; ``UserError`` for one that is no file of a runtime."""
    from edgekron.runtimes.agent.backends import BACKENDS

    paths = []
    for name in names:
        path = Path(name)
        if path.suffix.lower() not in BACKENDS:
            raise UserError(
                f"{name} is not a file that a runtime runs ({', '.join(BACKENDS)}); export it first: "
                f"edgekron export {name} --to onnx -o {path.stem}.onnx"
            )
        if not path.is_file():
            raise UserError(f"{name} does not exist; check the path, or export it first.")
        paths.append(path)
    return paths


def inputs_of(files: Sequence[Path]) -> list[NetworkInput] | None:
    """The first input of each file; None on a board, where the packages that follow axes through a graph are missing:
    there a file takes [N, C, H, W], as runtimes say it.
    """
    if not all(importlib.util.find_spec(package) for package in ("onnx", "onnx_ir", "torch")):
        return None
    from edgekron.exporters.entries import entries_of

    return [entries_of(file)[0] for file in files]


def write_json(path: Path, data: object, force: bool) -> None:
    """Writes plain data as JSON."""
    write_file(path, json.dumps(data, indent=1, allow_nan=False) + "\n", force)
