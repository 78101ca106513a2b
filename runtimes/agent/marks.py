"""Runs one model file and marks its inferences for an instruction counter: the agent's command ``count``.

An emulated board runs the model under the counter. The machine that emulates the board runs the model too, for outputs
to compare with; its marks do nothing. The request is a JSON object:

    file     the model
    input    an .npy file with the input; made first where ``make`` is true: seeded random numbers
    outputs  an .npz file to write: the outputs in their order, in the file's own types and layout
    warm_up  inferences before the first mark
    count    inferences between two marks each

The answer holds ``runtime``, the description of the runtime, on the last line of standard output: a runtime may print
before it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .messages import Message

#: A mark is this system call on a number that no process has; see count.c.
_MARK = 0x7E000000
BEFORE, AFTER = 1, 2


def run_marked(request: Message) -> Message:
    """Carries out a request; ``RuntimeFailure`` for a file that cannot be run."""
    import numpy as np

    from . import backends

    try:
        session = backends.load(request["file"], 1)
        if request["make"]:
            np.save(request["input"], backends.random_input(session, 0))
        x = np.load(request["input"])
        session.resize(len(x))
        for _ in range(request["warm_up"]):
            session.run(x)
        gc.disable()
        for _ in range(request["count"]):
            mark(BEFORE)
            outputs = session.run(x)
            mark(AFTER)
        gc.enable()
    finally:
        sys.stdout.write("\n")
    np.savez(request["outputs"], *outputs)
    return {"runtime": session.describe()}


def mark(tag: int) -> None:
    """Has the counter print what was executed since the last mark."""
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(_MARK | tag)
