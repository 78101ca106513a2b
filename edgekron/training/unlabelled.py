"""What is done without labels before training: correction and reconstruction, once, kept beside the state."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekron.cli.shared.output import Steps
from edgekron.files import write_file
from edgekron.graph import Hub

if TYPE_CHECKING:
    from edgekron.training import Block, Examples, Processes

#: Images that blocks are reconstructed by, at most and at least, and their pixels between these: their activations at
#: both ends of a block are in memory.
IMAGES, LEAST, PIXELS = 1024, 64, 2**22
_HUB, _BLOCKS = "reconstructed.onnx", "blocks.json"


def before_training(
    hub: Hub,
    teacher: Hub,
    examples: Examples,
    arguments: argparse.Namespace,
    state: Path,
    processes: Processes,
    bars: Steps,
) -> tuple[Hub, list[dict[str, Any]]]:
    """The hub after ``--correct`` and ``--reconstruct``, and what was done to each block; from ``state`` where it was
    done before.

    One process does it; the others wait for the file. Raises ``UserError``.
    """
    from edgekron.training import re_estimate, reconstruct

    key: dict[str, Any] = {"steps": arguments.reconstruct, "correct": arguments.correct, "seed": arguments.seed}
    key |= {"images": f"{len(examples)} of {examples.name}", "teacher": arguments.teacher}
    key["network"] = hashlib.sha256((Path(arguments.folder) / "hub.onnx").read_bytes()).hexdigest()
    path = state / _BLOCKS
    if processes.first and not (path.exists() and json.loads(path.read_text())["of"] == key):
        count = max(LEAST, min(IMAGES, PIXELS // math.prod(hub.input_shape[1:])))
        rows = examples.rows[:: max(1, len(examples) // count)][:count]
        images = examples.fetch(rows)
        made = re_estimate(hub, teacher, images, rescale=True) if arguments.correct else hub
        blocks: list[Block] = []
        if arguments.reconstruct:
            steps = arguments.reconstruct
            made, blocks = reconstruct(made, teacher, images, steps=steps, seed=arguments.seed, progress=bars)
        made.save(state / _HUB, force=True)
        write_file(path, json.dumps({"of": key, "blocks": [asdict(b) for b in blocks]}), force=True)
    processes.wait()
    return Hub.open(state / _HUB), json.loads(path.read_text())["blocks"]
