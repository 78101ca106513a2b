"""Carries out a request to the agent, alone on its machine and within its time.

A request is one JSON object on one line. Every request has ``do`` and ``limit_s``, the seconds after which the work is
given up and ended; ``patience``, the seconds to wait for another measurement's end; and ``threads`` and ``seed``. A
file in a request is an object with ``path`` and ``name`` (its name in errors).

=======  ==========================================================  ================================================
do       takes                                                       gives
=======  ==========================================================  ================================================
measure  files, rounds, seconds, pin, hertz (or 0), paced_seconds    facts, before, during, after, files
prove    file, limit (bytes), runs                                   see ``edgekron.runtimes.agent.proof``
profile  file, runs, pin                                             nodes
arena    file                                                        see ``edgekron.runtimes.agent.arena``
=======  ==========================================================  ================================================
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from . import environment
from .errors import OutOfTimeError, RuntimeFailure
from .proof import prove
from .rounds import measure, start_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .messages import Message, Progress
    from .store import Store


def carry_out(store: Store, request: Message, tell: Callable[[Message], None]) -> None:
    """Carries out a request within its time and tells the answer, or the failure."""

    def progress(text: str, done: int, total: int) -> None:
        tell({"step": {"done": done, "total": total, "text": text}})

    limit = request["limit_s"]

    def give_up(_number: int, _frame: object) -> None:
        raise OutOfTimeError(
            f"the work took longer than its limit of {limit:g} seconds; give it more time, or do less."
        )

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with store.alone(request["do"], request["patience"], lambda: progress("waiting for another measurement", 0, 1)):
            answer = {"ok": True, **_REQUESTS[request["do"]](request, progress)}
    except RuntimeFailure as error:
        answer = {"ok": False, "error": str(error)}
    except Exception as error:  # noqa: BLE001 - the other side must get an answer
        answer = {"ok": False, "error": f"{request['do']} failed on the device with {type(error).__name__}: {error}"}
    signal.setitimer(signal.ITIMER_REAL, 0)
    tell(answer)


def _profile(request: Message, progress: Progress) -> Message:
    file = request["file"]
    progress(f"profiling {file['name']}", 0, 1)
    cores = environment.fastest_cores(request["threads"]) if request["pin"] else None
    with start_worker(file["name"], request["threads"]) as process:
        words = {name: request[name] for name in ("threads", "runs", "seed")}
        return process.ask("profile", file=file["path"], cores=cores, **words)


def _arena(request: Message, progress: Progress) -> Message:
    file = request["file"]
    progress(f"planning {file['name']}", 0, 1)
    with start_worker(file["name"], request["threads"]) as process:
        return process.ask("arena", file=file["path"])


_REQUESTS: dict[str, Callable[[Message, Progress], Mapping[str, object]]] = {
    "measure": measure,
    "prove": prove,
    "profile": _profile,
    "arena": _arena,
}
