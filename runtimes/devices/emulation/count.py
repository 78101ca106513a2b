"""Instructions of model files on an emulated board: exact, repeatable, and no times.

Each file runs in a fresh emulator with one thread: a few inferences first (they set up caches and code paths of the
runtime), then single inferences between marks. Counted is everything that the call of the runtime executes in the
process, the Python binding's share included (about ten thousand instructions). The same file runs on this machine too,
on the same input, and the outputs are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekron.runtimes.agent.backends import backend
from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.agent.marks import AFTER
from edgekron.runtimes.archive import archive

from .packages import last_error
from .results import CLASSES, Agreement, FileCount, InstructionReport

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import Message, Progress

    from .boards import EmulatedBoard
    from .installation import Installation

#: The first inference that is counted differs from the later ones by some hundred instructions, and is dropped.
_WARM_UP = 2
_DROPPED = 1


def count_instructions(
    files: Sequence[str | Path],
    installation: Installation,
    board: EmulatedBoard,
    *,
    inferences: int = 3,
    timeout: float = 600,
    progress: Progress | None = None,
) -> InstructionReport:
    """Counts ``inferences`` inferences of each file, and compares the outputs with this machine's.

    ``timeout`` is in seconds for each file. Raises ``RuntimeFailure`` for a file that cannot be run on the board or on
    this machine.
    """
    if not files:
        raise RuntimeFailure("no file to count was given; name at least one .onnx or .tflite file.")
    if inferences < 1:
        raise RuntimeFailure(f"{inferences} inferences cannot be counted; give at least 1.")
    for file in files:
        backend(file)
        if not Path(file).is_file():
            raise RuntimeFailure(f"{file} does not exist; check the path.")
    counts = []
    with tempfile.TemporaryDirectory(prefix="edgekron-emulated-") as name:
        folder = Path(name)
        (folder / "agent.pyz").write_bytes(archive())
        for index, file in enumerate(files):
            if progress:
                progress(f"running {Path(file).name}", index, len(files))
            counts.append(_count(str(file), installation, board, inferences, timeout, folder))
    if progress:
        progress("done", len(files), len(files))
    return InstructionReport(f"emulated:{board.name}", installation.facts(board), tuple(counts))


def _count(
    file: str, installation: Installation, board: EmulatedBoard, inferences: int, timeout: float, folder: Path
) -> FileCount:
    request = {"file": str(Path(file).resolve()), "input": str(folder / "input.npy")}
    here, there, marks = folder / "here.npz", folder / "there.npz", folder / "marks.json"
    agent = str(folder / "agent.pyz")
    one = {**request, "make": True, "outputs": str(here), "warm_up": 0, "count": 1}
    _run([sys.executable, agent], os.environ, one, file, "this machine", timeout)
    many = {**request, "make": False, "outputs": str(there), "warm_up": _WARM_UP, "count": inferences + _DROPPED}
    command = [*installation.command(board, count_to=marks), agent]
    described = _run(command, installation.environment(folder), many, file, f"emulated:{board.name}", timeout)
    counted = inference_counts(marks.read_text())[_DROPPED:]
    if len(counted) != inferences:
        raise RuntimeFailure(f"{file}: {len(counted)} of {inferences} inferences were counted; run this again.")
    with np.load(here) as expected, np.load(there) as found:
        agreement = compare([expected[name] for name in expected], [found[name] for name in found])
    return FileCount(file, described["runtime"], tuple(counted), agreement)


def _run(
    agent: Sequence[str], environment: Mapping[str, str], request: Message, file: str, where: str, timeout: float
) -> Message:
    """The agent's answer to ``count``, from a process that ``agent`` starts ``where``."""
    words = [*agent, "count", json.dumps(request)]
    try:
        done = subprocess.run(words, env=dict(environment), capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeFailure(
            f"{file}: not done on {where} in {timeout:g} seconds; emulation is hundreds of times slower than the "
            "machine, so count a smaller input."
        ) from None
    *_, last = b"", *done.stdout.splitlines()
    if done.returncode and not last.startswith(b'{"ok": false'):
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        said = last_error(done.stderr.decode(errors="replace"))
        raise RuntimeFailure(f"{file}: the process on {where} died ({how}, last words: {said}).")
    answer: Message = json.loads(last)
    if not answer["ok"]:
        raise RuntimeFailure(f"on {where}: {answer['error']}")
    return answer


def inference_counts(marks: str) -> list[dict[str, int]]:
    """The counts between each pair of marks, from the counter's output; ``RuntimeFailure`` when it is not that."""
    try:
        lines = [json.loads(line) for line in marks.splitlines()]
        return [{name: int(line[name]) for name in CLASSES} for line in lines if line["tag"] == AFTER]
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeFailure(f"the instruction counter wrote what cannot be read ({error}); build it again.") from None


def compare(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Agreement:
    """How the outputs of one file agree, in their own types: see ``Agreement``."""
    if [(y.shape, y.dtype) for y in expected] != [(y.shape, y.dtype) for y in found]:
        raise RuntimeFailure("the outputs on the board have other shapes or types than this machine's.")
    differing, relative = 0, 0.0
    for y, z in zip(expected, found, strict=True):
        unequal = (y != z) & ~(np.isnan(y) & np.isnan(z))
        differing += int(unequal.sum())
        if unequal.any():
            a, b = y[unequal].astype(np.float64), z[unequal].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                difference = np.abs(a - b).max() / np.abs(y[np.isfinite(y)].astype(np.float64)).max(initial=0.0)
            relative = max(relative, float(difference) if np.isfinite(difference) else float("inf"))
    kind = "integer" if all(y.dtype.kind in "iub" for y in expected) else "float"
    return Agreement(kind, sum(y.size for y in expected), differing, relative)
