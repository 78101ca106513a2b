"""The folder that the agent keeps on a device: files by the hash of their content, the jobs, and the lock.

    files/HASH.onnx        a model; HASH.onnx.part while it arrives
    jobs/ID/request.json   the request
    jobs/ID/messages       the job's messages so far, a JSON object a line; the last one has ``ok``
    jobs/ID/alive          locked by the job's process as long as that runs; holds its process number
    lock                   locked by the job that measures

Locks are the kernel's (``flock``): they vanish with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import RuntimeFailure

if TYPE_CHECKING:
    from .messages import Message

_ID = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[0-9a-f]{64}\.(onnx|tflite)")
_PIECE = 1 << 20
#: What must stay free on the disk when a file has arrived: results need some room.
_SPARE = 4 * 2**20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PAUSE = 0.05
_WEEK = 7 * 24 * 3600


def default_folder() -> Path:
    """Where the agent keeps its files unless told otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekron"


class Store:
    """One such folder; made when first used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with said(folder):
            for name in ("files", "jobs"):
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def job(self, identity: str) -> Path:
        """The folder of a job, which need not exist; ``RuntimeFailure`` for what is no job's name."""
        if not _ID.fullmatch(identity):
            raise RuntimeFailure(f"{identity!r} is not the name of a job.")
        return self.folder / "jobs" / identity

    def file(self, name: str) -> Path:
        """The path of a file by its content's name, which need not exist."""
        if not _NAME.fullmatch(name):
            raise RuntimeFailure(f"{name!r} is not the name of a file's content.")
        return self.folder / "files" / name

    def held(self, name: str) -> tuple[int, bool]:
        """How many bytes of a file are here, and whether it is whole."""
        path = self.file(name)
        for candidate in (path, _part(path)):
            if candidate.exists():
                return candidate.stat().st_size, candidate == path
        return 0, False

    def receive(self, name: str, offset: int, size: int, source: IO[bytes]) -> None:
        """Takes the rest of a file of ``size`` bytes from ``offset`` on.

        The beginning of a file whose sender vanished stays, so that the rest can follow. Raises ``RuntimeFailure`` when
        the disk is full, when less arrives than was announced, or when the content's hash is not that of the name.
        """
        path = self.file(name)
        part = _part(path)
        if path.exists():
            return
        with said(path):
            if shutil.disk_usage(self.folder).free < size - offset + _SPARE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with part.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.truncate(offset)
                missing = size - offset
                while piece := source.read(min(_PIECE, missing)):
                    file.write(piece)
                    file.flush()
                    missing -= len(piece)
                os.fsync(file.fileno())
        if part.stat().st_size < size:
            raise RuntimeFailure(f"{part.stat().st_size} of {size} bytes of {name} arrived; send the rest.")
        if hashlib.sha256(part.read_bytes()).hexdigest() != path.stem:
            part.unlink()
            raise RuntimeFailure(f"{name} was damaged on its way; send it again.")
        part.replace(path)

    def remove(self, names: list[str]) -> None:
        """Removes files by their names; what is not there is no error."""
        for name in names:
            self.file(name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Removes every file, job and agent; a job that still runs keeps the lock and its open files."""
        for entry in ("files", "jobs"):
            shutil.rmtree(self.folder / entry, ignore_errors=True)
        for path in self.folder.glob("agent-*.pyz"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            with (self.folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (self.folder / "lock").unlink()
            self.folder.rmdir()

    def tidy(self) -> None:
        """Removes results that nobody fetched and files whose rest never came, after a week."""
        oldest = time.time() - _WEEK
        for path in [*(self.folder / "jobs").iterdir(), *(self.folder / "files").glob("*.part")]:
            with contextlib.suppress(OSError, RuntimeFailure):
                if path.stat().st_mtime < oldest and (path.is_file() or self.running(path.name) is None):
                    path.unlink() if path.is_file() else shutil.rmtree(path)

    def running(self, identity: str) -> int | None:
        """The process number of a job's process; None when it does not run (any more)."""
        try:
            with (self.job(identity) / "alive").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int((self.job(identity) / "alive").read_text() or 0) or None
        except OSError:
            return None
        return None

    @contextmanager
    def alone(self, who: str, patience: float, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the lock of this machine; ``RuntimeFailure`` when another measurement holds it for too long.

        ``waiting`` is called once if there is another.
        """
        first = True
        deadline = time.monotonic() + patience
        with said(self.folder):
            lock = (self.folder / "lock").open("a+")
        with lock as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        file.seek(0)
                        other = file.read(200).strip() or "another measurement"
                        raise RuntimeFailure(
                            f"this machine is measuring already ({other}); two at once would disturb each other, so "
                            "wait for the other's end."
                        ) from None
                    if first:
                        waiting()
                        first = False
                    time.sleep(_PAUSE)
            file.truncate(0)
            file.write(f"{who}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)


def follow(store: Store, identity: str, seen: int) -> Iterator[Message]:
    """The messages of a job from number ``seen`` on, as they come, up to the last one.

    A job whose process died without a last word gets one.
    """
    path = store.job(identity) / "messages"
    if not path.exists():
        raise RuntimeFailure(f"there is no job {identity} here; it was removed, or never started.")
    rest = b""
    with path.open("rb") as file:
        number = 0
        while True:
            alive = store.running(identity)
            rest += file.read()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                message = json.loads(line)
                number += 1
                if number > seen:
                    yield message
                if "ok" in message:
                    return
            if alive is None and not lines:
                yield {"ok": False, "error": "the measurement was killed on the device; its memory may have run out."}
                return
            time.sleep(_PAUSE)


@contextmanager
def said(path: Path) -> Iterator[None]:
    """Turns errors of the file system into a sentence about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise RuntimeFailure(f"the disk of the device is full ({path}); free some room there.") from None
        raise RuntimeFailure(f"{path} cannot be used on the device ({error.strerror or error}).") from None


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
