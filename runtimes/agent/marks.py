"""Runs one model file and marks its inferences for the instruction counter: the program inside the emulated board.

It is run as ``python guest.py REQUEST`` with the agent's archive on the path, in the emulator and once on this machine
itself, where the marks do nothing, for the outputs to compare with. REQUEST is a JSON object:

    file     the model
    input    an .npy file with the input; made first where ``make`` is true: seeded random numbers
    outputs  an .npz file to write: the outputs in their order, in the file's own types and layout
    warm_up  inferences before the first mark
    count    inferences between two marks each

One JSON object on the last line of standard output: the description of the runtime, or ``error``, a sentence.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from typing import Any

#: A mark is this system call on a number that no process has; see count.c.
_MARK = 0x7E000000
BEFORE, AFTER = 1, 2


def mark(tag: int) -> None:
    """Has the counter print what was executed since the last mark."""
    with contextlib.suppress(ProcessLookupError):
        os.getpgid(_MARK | tag)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out a request."""
    import numpy as np

    from edgekron.runtimes.agent import backends
    from edgekron.runtimes.agent.errors import RuntimeFailure

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
    except RuntimeFailure as error:
        return {"error": str(error)}
    np.savez(request["outputs"], *outputs)
    return {"runtime": dict(session.describe())}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(answer(json.loads(sys.argv[1]))) + "\n")
