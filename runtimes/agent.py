"""The process that runs one model on the device: JSON requests on standard input, JSON answers on standard output.

It needs Python 3.9, numpy and a runtime. ``edgekron.runtimes.archive`` packs it with its four helpers into one file
that is copied to a board and run as ``python agent.pyz``; the local device runs that very file.

One line in, one line out. Every request is an object with ``do``; every answer has ``ok``, and ``error`` (a sentence)
where ``ok`` is false.

===========  =============================================  =======================================================
do           takes                                          gives
===========  =============================================  =======================================================
hello                                                       protocol, python
environment  threads                                        facts, state, cores (the ones to pin ``threads`` to)
state                                                       state
load         file, threads, cores (or null)                 import_ns, load_ns, input, outputs, runtime, memory, cores
time         count, seed                                    nanoseconds of each of ``count`` inferences
memory                                                      the five numbers of ``edgekron.runtimes.memory``
run          shape, data (base64 of float32 NCHW)           the outputs, each with shape and data
quit                                                        (the process ends)
===========  =============================================  =======================================================

The process ends by itself when its input closes, so it never outlives the program that started it. Whatever a runtime
prints goes to standard error: the answers travel on a private copy of standard output.
"""

from __future__ import annotations

import base64
import gc
import importlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgekron.runtimes import environment, memory
from edgekron.runtimes.errors import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from edgekron.runtimes.backends import Session

#: Raised whenever a request or an answer changes its meaning.
PROTOCOL = 1

Message = dict[str, Any]


class Agent:
    """Holds at most one open model; ``answer`` dispatches a request to the method of its name."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._input: np.ndarray | None = None
        self._memory: dict[str, int | None] = {}

    def answer(self, request: Message) -> Message:
        """The answer to one request; failures become answers too."""
        verbs: dict[str, Callable[..., Message]] = {
            "hello": self._hello,
            "environment": self._environment,
            "state": self._state,
            "load": self._load,
            "time": self._time,
            "memory": self._memory_numbers,
            "run": self._run,
        }
        arguments = dict(request)
        verb = arguments.pop("do", None)
        if verb not in verbs:
            return {"ok": False, "error": f"unknown request {verb!r}; the agent knows {', '.join(verbs)} and quit."}
        try:
            return {"ok": True, **verbs[verb](**arguments)}
        except RuntimeFailure as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - the other side must get an answer whatever a runtime raises
            where = f"{self._session.file}: " if self._session else ""
            return {"ok": False, "error": f"{where}{verb} failed with {type(error).__name__}: {error}"}

    def _hello(self) -> Message:
        return {"protocol": PROTOCOL, "python": platform.python_version()}

    def _environment(self, threads: int) -> Message:
        facts = environment.describe()
        return {"facts": facts, "state": environment.state(), "cores": environment.fastest_cores(threads)}

    def _state(self) -> Message:
        return {"state": environment.state()}

    def _load(self, file: str, threads: int, cores: list[int] | None) -> Message:
        if self._session:
            raise RuntimeFailure(f"{self._session.file} is open already; start another process for {file}.")
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)  # before the runtime starts its threads, which inherit it
        started = time.perf_counter_ns()
        from edgekron.runtimes import backends

        backend = backends.backend(file)
        backend.import_runtime()
        imported = time.perf_counter_ns() - started
        importlib.import_module("numpy.random")  # used later for the input; it belongs to the baseline, not the model
        baseline = memory.resident()
        memory.reset_peak()
        started = time.perf_counter_ns()
        session = backends.load(file, threads)
        loaded = time.perf_counter_ns() - started
        self._session = session
        self._memory = {"file": Path(file).stat().st_size, "runtime": baseline, "loaded": memory.resident()}
        return {
            "import_ns": imported,
            "load_ns": loaded,
            "input": asdict(session.input),
            "outputs": [asdict(tensor) for tensor in session.outputs],
            "runtime": dict(session.describe()),
            "cores": environment.allowed_cores(),
        }

    def _time(self, count: int, seed: int) -> Message:
        session = self._opened()
        if self._input is None:
            from edgekron.runtimes.backends import random_input

            self._input = random_input(session, seed)
            session.resize(len(self._input))
        x = self._input
        clock, run = time.perf_counter_ns, session.run
        samples = []
        gc.disable()
        try:
            for _ in range(count):
                started = clock()
                run(x)
                samples.append(clock() - started)
        finally:
            gc.enable()
        return {"nanoseconds": samples}

    def _memory_numbers(self) -> Message:
        self._opened()
        return {"memory": {**self._memory, "peak": memory.peak(), "steady": memory.resident()}}

    def _run(self, shape: list[int], data: str) -> Message:
        import numpy as np

        from edgekron.runtimes.backends import run_nchw

        images = np.frombuffer(base64.b64decode(data), np.float32).reshape(shape)
        outputs = run_nchw(self._opened(), images)
        return {"outputs": [{"shape": y.shape, "data": base64.b64encode(y.tobytes()).decode()} for y in outputs]}

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeFailure("no model is open; ask to load one first.")
        return self._session


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers requests until ``quit`` or the end of the input."""
    agent = Agent()
    for line in requests:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            answer: Message = {"ok": False, "error": "a request must be one JSON object on one line."}
        elif request.get("do") == "quit":
            return
        else:
            answer = agent.answer(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serves standard input; the only thing ever written to the real standard output is answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, answers)
    except (BrokenPipeError, KeyboardInterrupt):
        # Nobody listens any more; the interpreter would complain while flushing at exit.
        os._exit(0)


if __name__ == "__main__":
    main()
