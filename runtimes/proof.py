"""Runs a model under a hard limit of memory and says whether it lived.

The limit is the kernel's, one of these, the first that this machine allows:

========  =======================================================================================================
means     what is limited
========  =======================================================================================================
cgroup    memory of the whole process in RAM, swap excluded, by a control group made for it (needs root, or a
          group that was delegated to the user) or by ``systemd-run --user``. Libraries that another process has
          already brought into memory are not counted twice, so the limit is that of a machine where they are there.
rlimit    private memory that the process asks for (``RLIMIT_DATA``), touched or not, shared libraries excluded
========  =======================================================================================================

The process holds Python and the runtime too: what they need alone is the second of the five memory numbers.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekron.runtimes.errors import RuntimeFailure
from edgekron.runtimes.rounds import start_worker, worker_command

if TYPE_CHECKING:
    from edgekron.runtimes.rounds import Say

Message = dict[str, Any]

_GROUPS = Path("/sys/fs/cgroup")


def prove(request: Message, say: Say) -> Message:
    """Carries out a ``prove`` request (see ``edgekron.runtimes.requests``).

    A process that dies under the limit is an answer, not an error: ``lived`` is False, ``stage`` says how far it came
    ("start", "load" or "run"), and ``reason`` holds its last words.
    """
    file, limit = request["file"], request["limit"]
    say(0, 1, f"running {file['name']} in {limit} bytes")
    stage, reason, numbers = "start", None, None
    with _cage(limit) as cage:
        try:
            with start_worker(file["name"], request["threads"], [*cage.prefix, *worker_command()]) as worker:
                stage = "load"
                worker.ask("load", file=file["path"], threads=request["threads"], cores=None)
                stage = "run"
                worker.ask("time", count=request["runs"], seed=request["seed"])
                numbers = worker.ask("memory")["memory"]
                stage = "done"
        except RuntimeFailure as error:
            reason = str(error).replace(file["path"], file["name"])
        peak = cage.peak()
    say(1, 1, "done")
    return {
        "name": file["name"],
        "limit": limit,
        "means": cage.means,
        "lived": stage == "done",
        "stage": stage,
        "reason": reason,
        "peak": peak,
        "memory": numbers,
    }


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
    group = _new_group(limit)
    if group is not None:
        try:
            yield _Cage("cgroup", [sys.executable, sys.argv[0], "join", str(group)], group)
        finally:
            with contextlib.suppress(OSError):
                group.rmdir()
        return
    scope = ["systemd-run", "--user", "--scope", "--quiet", f"--property=MemoryMax={limit}"]
    scope += ["--property=MemorySwapMax=0", "--"]
    if _works([*scope, "true"]):
        yield _Cage("cgroup", scope)
        return
    yield _Cage("rlimit", [sys.executable, sys.argv[0], "limit", str(limit)])


def _new_group(limit: int) -> Path | None:
    """A control group of its own with the limit set; None where this user may make none."""
    for parent, settings in _places(limit):
        group = parent / f"edgekron-{secrets.token_hex(4)}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, value in settings.items():
                if (group / name).exists() or name == next(iter(settings)):
                    (group / name).write_text(value)
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        return group
    return None


def _places(limit: int) -> Iterator[tuple[Path, dict[str, str]]]:
    """Folders in which a group may be made, with what to write into it; the first setting is the limit itself."""
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
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)  # noqa: S603 - our own words
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
