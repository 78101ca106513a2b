"""The process that runs one model on the device: JSON requests on standard input, JSON answers on standard output.

One line in, one line out. Every request is an object with ``do``; every answer has ``ok``, and ``error`` (a sentence)
if ``ok`` is false.

=======  =======================================  ==============================================================
do       takes                                    gives
=======  =======================================  ==============================================================
hello                                             protocol, python
load     file, threads, cores (or null)           import_ns, load_ns, input, outputs, runtime, memory, cores
time     count, seed, period_ns (optional)        nanoseconds of each of ``count`` inferences
memory                                            the five numbers of ``edgekron.runtimes.agent.memory``
run      shape, data (base64), dtype (float32)    the outputs, each with shape and data
profile  file, threads, cores, runs, seed         nodes: name, operator and seconds of each (``.onnx``)
arena    file                                     the numbers of ``edgekron.runtimes.agent.arena`` (``.tflite``)
quit                                              (the process ends)
=======  =======================================  ==============================================================

``time`` without a period runs back to back; with a period, an inference begins every ``period_ns`` nanoseconds, and
the process sleeps in between. A worker ends when its input closes, or when the process that started the worker ends.
All that a runtime prints goes to standard error: the answers travel on a private copy of standard output.
"""

from __future__ import annotations

import base64
import ctypes
import gc
import importlib
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

from . import environment, memory
from .errors import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from .backends import Session
    from .messages import Message

#: Raised whenever a request or an answer changes its meaning.
PROTOCOL = 2

#: The request of prctl(2) for a signal at the death of the parent.
_PR_SET_PDEATHSIG = 1


class Worker:
    """Holds at most one open model; ``answer`` dispatches a request to the method of its name."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._input: np.ndarray | None = None
        self._memory: dict[str, int | None] = {}

    def answer(self, request: Message) -> Message:
        """The answer to one request; failures become answers too."""
        verbs: dict[str, Callable[..., Message]] = {
            "hello": self._hello,
            "load": self._load,
            "time": self._time,
            "memory": self._memory_numbers,
            "run": self._run,
            "profile": self._profile,
            "arena": self._arena,
        }
        arguments = dict(request)
        verb = arguments.pop("do", None)
        if verb not in verbs:
            return {"ok": False, "error": f"unknown request {verb!r}; a worker knows {', '.join(verbs)} and quit."}
        try:
            return {"ok": True, **verbs[verb](**arguments)}
        except RuntimeFailure as error:
            return {"ok": False, "error": str(error)}
        except MemoryError:
            return {"ok": False, "error": f"{self._where()}memory ran out during '{verb}'; use a smaller model."}
        except Exception as error:  # noqa: BLE001 - the other side must get an answer whatever a runtime raises
            return {"ok": False, "error": f"{self._where()}{verb} failed with {type(error).__name__}: {error}"}

    def _where(self) -> str:
        return f"{self._session.file}: " if self._session else ""

    def _hello(self) -> Message:
        return {"protocol": PROTOCOL, "python": platform.python_version()}

    def _load(self, file: str, threads: int, cores: list[int] | None) -> Message:
        if self._session:
            raise RuntimeFailure(f"{self._session.file} is open already; start another process for {file}.")
        _pin(cores)
        started = time.perf_counter_ns()
        from . import backends

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

    def _time(self, count: int, seed: int, period_ns: int = 0) -> Message:
        session = self._opened()
        if self._input is None:
            from .backends import random_input

            self._input = random_input(session, seed)
            session.resize(len(self._input))
        x = self._input
        clock, run = time.perf_counter_ns, session.run
        samples = []
        gc.disable()
        try:
            due = clock()
            for _ in range(count):
                if period_ns:
                    time.sleep(max(0, due - clock()) / 1e9)
                    due += period_ns
                started = clock()
                run(x)
                samples.append(clock() - started)
        finally:
            gc.enable()
        return {"nanoseconds": samples}

    def _memory_numbers(self) -> Message:
        self._opened()
        return {"memory": {**self._memory, "peak": memory.peak(), "steady": memory.resident()}}

    def _run(self, shape: list[int], data: str, dtype: str = "float32") -> Message:
        import numpy as np

        from .backends import run_nchw

        images = np.frombuffer(base64.b64decode(data), dtype).reshape(shape)
        outputs = run_nchw(self._opened(), images)
        return {"outputs": [{"shape": y.shape, "data": base64.b64encode(y.tobytes()).decode()} for y in outputs]}

    def _profile(self, file: str, threads: int, cores: list[int] | None, runs: int, seed: int) -> Message:
        from .profile import profile

        _pin(cores)
        return {"nodes": [asdict(node) for node in profile(file, threads=threads, runs=runs, seed=seed)]}

    def _arena(self, file: str) -> Message:
        from .arena import arena

        return asdict(arena(file))

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeFailure("no model is open; ask to load one first.")
        return self._session


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers requests until ``quit`` or the end of the input."""
    worker = Worker()
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
            answer = worker.answer(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serves standard input; the only thing ever written to the real standard output is answers."""
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, answers)
    except (BrokenPipeError, KeyboardInterrupt):
        # Nobody listens any more; the interpreter would complain while flushing at exit.
        os._exit(0)


def _pin(cores: list[int] | None) -> None:
    """Keeps this process on ``cores``: to be called before a runtime starts its threads, which inherit it."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _die_with_parent() -> None:
    """A runtime that hangs never sees that its input closed; Linux ends it with the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
