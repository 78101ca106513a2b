"""Shared by the commands that run model files: the files that they take, and the JSON that they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError
from edgekron.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def write_json(path: Path, data: object, force: bool) -> None:
    """Writes plain data as JSON."""
    write_file(path, json.dumps(data, indent=1, allow_nan=False) + "\n", force)
