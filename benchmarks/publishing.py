"""What benchmarks of trained networks have in common: opening one, and publishing what was measured."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from edgekron import graph, models
from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph import Hub

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION, TEST = "fashion-mnist:calibration", "fashion-mnist:test"

Result = dict[str, Any]


def digest_of(key: dict[str, Any]) -> str:
    """What folders of unfinished and finished work are told apart by."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]


def trained(name: str) -> tuple[nn.Module, Hub]:
    """A bundled trained network and its hub. Raises ``UserError`` for any other name."""
    if models.facts(name) is None:
        raise UserError(f"there is no trained network {name!r}; see `edgekron models`.")
    module = models.load(name)
    return module, graph.load(module, input_shape=models.NETWORKS[name].input_shape)


def publish(
    stem: str,
    measure: Callable[[], Result],
    table: Callable[[Result], str],
    draw: Callable[[Result, Path], None] | None = None,
) -> int:
    """Measures and writes ``benchmarks/results/STEM.json``, ``docs/STEM.md`` and, with ``draw``, ``docs/STEM.svg``.

    Gives the exit code, which is 2 for bad input.
    """
    try:
        result = measure()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    result["command"] = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    write_file(ROOT / "benchmarks" / "results" / f"{stem}.json", json.dumps(result, indent=1) + "\n", force=True)
    write_file(ROOT / "docs" / f"{stem}.md", table(result), force=True)
    if draw is not None:
        draw(result, ROOT / "docs" / f"{stem}.svg")
    print(table(result))
    return 0
