"""Runs a model under a hard limit of memory and says whether its process lived.

The kernel keeps the limit, by the first of these means that the machine allows:

========  =======================================================================================================
means     limited memory
========  =======================================================================================================
cgroup    memory of the whole process in RAM, swap excluded, by a control group of its own (needs root, or a
          group that was delegated to the user) or by ``systemd-run --user``. Libraries that another process has
          already brought into memory are not counted again: the limit is that of a machine that holds them anyway.
rlimit    private memory that the process asks for (``RLIMIT_DATA``), touched or not, shared libraries excluded
========  =======================================================================================================

The process holds Python and the runtime too: their own need is the second of the five memory numbers.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import KilledError, OutOfTimeError, RuntimeFailure
from .rounds import start_worker, worker_command

if TYPE_CHECKING:
    from .messages import MemoryNumbers, Message, Progress, ProveAnswer, Stage

_GROUPS = Path("/sys/fs/cgroup")
#: Seconds in which killed processes must have left their group.
_PATIENCE = 2.0


def prove(request: Message, progress: Progress) -> ProveAnswer:
    """Carries out a ``prove`` request (see ``edgekron.runtimes.agent.requests``).

    A process that dies under the limit is an answer, not an error: ``lived`` is False, ``stage`` says how far the
    process came ("start", "load" or "run"), and ``reason`` holds its last words. After a death that was not the
    kernel's doing, the file is run once more without the limit; if it fails again, memory is not the cause, and
    ``RuntimeFailure`` is raised with the reason.
    """
    file, limit = request["file"], request["limit"]
    progress(f"running {file['name']} in {limit} bytes", 0, 1)
    with _cage(limit) as cage:
        attempt = _attempt(request, cage.prefix)
        peak = cage.peak()
    if attempt.reason is not None and not attempt.killed:
        progress(f"running {file['name']} without a limit", 0, 1)
        free = _attempt(request, [])
        if free.reason is not None and not free.killed:
            raise RuntimeFailure(free.reason)
    progress("done", 1, 1)
    return {
        "means": cage.means,
        "lived": attempt.reason is None,
        "stage": attempt.stage,
        "reason": attempt.reason,
        "peak": peak,
        "memory": attempt.memory,
    }


@dataclass
class _Attempt:
    """How far a process came ("start", "load", "run" or "done"), how it ended, and the five numbers of memory."""

    stage: Stage = "start"
    reason: str | None = None
    killed: bool = False
    memory: MemoryNumbers | None = None


def _attempt(request: Message, prefix: list[str]) -> _Attempt:
    """Loads and runs the file once in a process that ``prefix`` starts."""
    file, attempt = request["file"], _Attempt()
    try:
        with start_worker(file["name"], request["threads"], [*prefix, *worker_command()]) as worker:
            attempt.stage = "load"
            worker.ask("load", file=file["path"], threads=request["threads"], cores=None)
            attempt.stage = "run"
            worker.ask("time", count=request["runs"], seed=request["seed"])
            attempt.memory = worker.ask("memory")["memory"]
            attempt.stage = "done"
    except OutOfTimeError:
        raise
    except RuntimeFailure as error:
        attempt.reason = str(error).replace(file["path"], file["name"])
        attempt.killed = isinstance(error, KilledError)
    return attempt


@dataclass
class _Cage:
    """How a command is put under the limit."""

    means: str
    prefix: list[str]
    group: Path | None = None

    def peak(self) -> int | None:
        """The most bytes that the group held; None where nobody counted."""
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            if self.group and (self.group / name).exists():
                return int((self.group / name).read_text())
        return None


@contextmanager
def _cage(limit: int) -> Iterator[_Cage]:
    name = f"edgekron-{secrets.token_hex(4)}"
    try:
        group = _new_group(limit, name)
        if group is not None:
            yield _Cage("cgroup", [sys.executable, sys.argv[0], "join", str(group)], group)
            return
    finally:
        # Of all places: whoever was interrupted does not know how far it came.
        for parent, _ in _places(limit):
            _remove(parent / name)
    scope = ["systemd-run", "--user", "--scope", "--quiet", f"--property=MemoryMax={limit}"]
    scope += ["--property=MemorySwapMax=0", "--"]
    if _works([*scope, "true"]):
        yield _Cage("cgroup", scope)
        return
    yield _Cage("rlimit", [sys.executable, sys.argv[0], "limit", str(limit)])


def _new_group(limit: int, name: str) -> Path | None:
    """A control group of its own with the limit set; None where this user may make none."""
    for parent, settings in _places(limit):
        group = parent / name
        try:
            group.mkdir()
            for file, value in settings.items():
                if (group / file).exists() or file == next(iter(settings)):
                    (group / file).write_text(value)
        except OSError:
            _remove(group)
            continue
        return group
    return None


def _remove(group: Path) -> None:
    """Removes a control group, if there is one, with the processes in it."""
    deadline = time.monotonic() + _PATIENCE
    while group.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            for process in (group / "cgroup.procs").read_text().split():
                os.kill(int(process), signal.SIGKILL)
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)


def _places(limit: int) -> Iterator[tuple[Path, dict[str, str]]]:
    """Folders in which a group may be made, with the group's settings; the first setting is the limit itself."""
    text = Path("/proc/self/cgroup").read_text() if Path("/proc/self/cgroup").exists() else ""
    second = {"memory.max": str(limit), "memory.swap.max": "0"}
    first = {"memory.limit_in_bytes": str(limit), "memory.swappiness": "0"}
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(.*)$", text, re.MULTILINE):
        place = path.lstrip("/")
        if not controllers:
            for parent in (_GROUPS / place, (_GROUPS / place).parent, _GROUPS):
                yield parent, second
        elif "memory" in controllers.split(","):
            yield _GROUPS / "memory" / place, first
            yield _GROUPS / "memory", first


def _works(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
