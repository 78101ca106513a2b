"""Work without labels before training: correction and reconstruction, done once and kept beside the training state."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.processes import Processes, Progress

from .examples import Examples
from .reconstruct import Block, reconstruct
from .request import TrainingRequest
from .statistics import re_estimate

#: Images that blocks are reconstructed by, at most and at least, and their pixels between these: their activations at
#: both ends of a block are in memory.
IMAGES, LEAST, PIXELS = 1024, 64, 2**22
_HUB, _BLOCKS = "reconstructed.onnx", "blocks.json"


def before_training(
    hub: Hub,
    teacher: Hub,
    examples: Examples,
    request: TrainingRequest,
    state: Path,
    processes: Processes,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Hub, tuple[Block, ...]]:
    """The hub corrected and reconstructed as ``request`` says, and the blocks that were reconstructed.

    Both are read from ``state`` where the same work was done before. One process does the work; the others wait for
    the file. Raises ``UserError``.
    """
    key: dict[str, object] = {"steps": request.reconstruct, "correct": request.correct, "seed": request.seed}
    key |= {"images": f"{len(examples)} of {examples.name}", "teacher": request.teacher}
    key["network"] = hashlib.sha256((Path(request.source) / "hub.onnx").read_bytes()).hexdigest()
    path = state / _BLOCKS
    if processes.first and not (path.exists() and json.loads(path.read_text())["of"] == key):
        count = max(LEAST, min(IMAGES, PIXELS // math.prod(hub.input_shape[1:])))
        rows = examples.rows[:: max(1, len(examples) // count)][:count]
        images = examples.fetch(rows)
        made = re_estimate(hub, teacher, images, rescale=True) if request.correct else hub
        blocks: list[Block] = []
        if request.reconstruct:
            steps = request.reconstruct
            made, blocks = reconstruct(made, teacher, images, steps=steps, seed=request.seed, progress=progress)
        made.save(state / _HUB, force=True)
        write_file(path, json.dumps({"of": key, "blocks": [asdict(b) for b in blocks]}), force=True)
    processes.wait()
    kept = json.loads(path.read_text())["blocks"]
    return Hub.open(state / _HUB), tuple(Block(**{**block, "layers": tuple(block["layers"])}) for block in kept)
