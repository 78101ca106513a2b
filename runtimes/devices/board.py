"""A board that is reached through a command line, by SSH or adb, and runs the agent.

A request becomes a job on the board: a process that no longer needs the connection. The job's messages are followed
over the connection. When the connection is lost, the messages wait in a file on the board; reading goes on after the
last message heard as soon as the board can be reached again. Files are named by the hash of their content; a sending
that was interrupted goes on after the bytes that arrived.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.agent.worker import PROTOCOL
from edgekron.runtimes.archive import archive

from .answers import listen
from .device import Listener, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgekron.runtimes.agent.messages import DescribeAnswer, Message, WorkStep

#: Writes the agent (standard input) to its place and prints that. Any Python must be able to say that it is too old.
_INSTALL = """
import os, sys
if sys.version_info < (3, 9):
    sys.exit("Python %d.%d is too old" % sys.version_info[:2])
name, folder = sys.argv[1:]
home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
folder = os.path.expanduser(folder) or os.path.join(home, "edgekron")
path = os.path.join(folder, name)
data = sys.stdin.buffer.read()
os.makedirs(folder, mode=0o700, exist_ok=True)
if not os.path.exists(path) or open(path, "rb").read() != data:
    with open(path + ".%d" % os.getpid(), "wb") as file:
        file.write(data)
    os.replace(path + ".%d" % os.getpid(), path)
print("edgekron-agent " + path)
"""

#: Seconds: a command that only looks something up; reconnecting after a loss, in all.
_SHORT = 60.0
_RECONNECT = 120.0
#: A connection that is cut more often than this in one step is none.
_MOST_LOSSES = 10


class LostError(RuntimeFailure):
    """The connection was cut; what runs on the board goes on."""


class Transport(Protocol):
    """How commands reach the board."""

    def command(self, words: Sequence[str]) -> list[str]:
        """The command of this machine that runs ``words`` there, standard input and output connected."""
        ...

    def explain(self, code: int, said: str) -> RuntimeFailure:
        """Why a command ended with ``code`` and no answer; ``LostError`` where connecting again may help."""
        ...

    def connect(self) -> None:
        """Connects, also again after a loss; ``RuntimeFailure`` when it cannot be done."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class Board:
    """See ``Device``; connected, with the agent in place, once constructed."""

    unit = "second"

    def __init__(self, name: str, transport: Transport, target: Target, folder: str = "") -> None:
        self.name = name
        self._transport = transport
        self._python = target.python or "python3"
        self._folder = target.folder or folder
        self._keep = target.keep
        self._sent: dict[str, str] = {}
        transport.connect()
        try:
            self._agent = self._install()
        except BaseException:
            transport.close()
            raise

    def put(self, file: Path) -> str:
        """See ``Device.put``."""
        data = file.read_bytes()
        name = f"{hashlib.sha256(data).hexdigest()}{file.suffix.lower()}"
        if name not in self._sent:
            self._sent[name] = self._persistently(lambda: self._send(name, data))["path"]
        return self._sent[name]

    def run_agent(self, request: Message, listener: Listener | None = None) -> Message:
        """See ``Device.run_agent``."""
        identity = secrets.token_hex(8)
        words = (json.dumps(request) + "\n").encode()
        heard = 0

        def hear(step: WorkStep) -> None:
            nonlocal heard
            heard += 1
            if listener:
                listener(step)

        limit = request["limit_s"] + request["patience"] + _SHORT
        try:
            self._persistently(lambda: self._call(["start", identity], "start", words))
            return self._persistently(
                lambda: self._call(["wait", identity, str(heard)], request["do"], None, hear, limit)
            )
        finally:
            with contextlib.suppress(RuntimeFailure):
                self._call(["drop", identity], "drop")

    def facts(self) -> DescribeAnswer:
        """See ``Device.facts``."""
        return cast("DescribeAnswer", self._persistently(lambda: self._call(["describe"], "describe")))

    def clean(self) -> None:
        """Removes all that the agent keeps on the board, itself included."""
        self._call(["clean"], "clean")
        self._sent.clear()

    def close(self) -> None:
        """See ``Device.close``."""
        if self._sent and not self._keep:
            with contextlib.suppress(RuntimeFailure):
                self._call(["remove", *self._sent], "remove")
        self._transport.close()

    def _install(self) -> str:
        packed = archive()
        name = f"agent-{PROTOCOL}-{hashlib.sha256(packed).hexdigest()[:16]}.pyz"
        code, printed, said = self._run([self._python, "-c", _INSTALL, name, self._folder], packed)
        for line in printed.decode(errors="replace").splitlines():
            if line.startswith("edgekron-agent "):
                return line.partition(" ")[2]
        if "too old" in said:
            raise RuntimeFailure(
                f"{self.name}: {said.splitlines()[-1]} for the agent; install Python 3.9 or newer there and name it "
                "with --python."
            )
        if "No space left" in said:
            raise RuntimeFailure(f"{self.name}: the disk of the device is full; free some room there.")
        if code in (126, 127):
            raise RuntimeFailure(
                f"{self.name} has no {self._python}; install it there (sudo apt install python3), or name another with "
                "--python."
            )
        raise self._transport.explain(code, said)

    def _send(self, name: str, data: bytes) -> Message:
        held = self._call(["held", name], "held")
        if held["whole"]:
            return held
        start = min(held["bytes"], len(data))
        words = ["receive", name, str(start), str(len(data))]
        return self._call(words, "receive", data[start:], limit=None)

    def _persistently(self, step: Callable[[], Message]) -> Message:
        """Repeats a step after each loss of the connection, for as long as a board takes to come back."""
        for _ in range(_MOST_LOSSES):
            try:
                return step()
            except LostError:
                self._reconnect()
        return step()

    def _reconnect(self) -> None:
        deadline, pause = time.monotonic() + _RECONNECT, 0.2
        while True:
            try:
                self._transport.connect()
            except LostError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
            else:
                return

    def _run(self, words: Sequence[str], data: bytes) -> tuple[int, bytes, str]:
        """(exit code, output, errors) of any command there."""
        command = self._transport.command(words)
        try:
            done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=_SHORT)
        except subprocess.TimeoutExpired:
            raise RuntimeFailure(f"{self.name} does not answer; look whether it is up.") from None
        return done.returncode, done.stdout, done.stderr.decode(errors="replace").strip()

    def _call(
        self,
        words: Sequence[str],
        what: str,
        data: bytes | None = b"",
        listener: Listener | None = None,
        limit: float | None = _SHORT,
    ) -> Message:
        """One command of the agent. ``data`` None keeps its input open, by which it notices that we have gone."""
        folder = ["--folder", self._folder] if self._folder else []
        command = self._transport.command([self._python, self._agent, *folder, *words])
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            started = time.monotonic()
            timer = threading.Timer(limit, process.kill) if limit else None
            if timer:
                timer.start()
            requests = cast("IO[bytes]", process.stdin)
            try:
                with contextlib.suppress(BrokenPipeError):
                    requests.write(data or b"")
                    requests.flush()
                    if data is not None:
                        requests.close()
                answer = listen(cast("IO[bytes]", process.stdout), what, self.name, listener)
            finally:
                if timer:
                    timer.cancel()
                with contextlib.suppress(BrokenPipeError):
                    requests.close()
                cast("IO[bytes]", process.stdout).close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                process.kill()
                code = process.wait()
            if answer is not None:
                return answer
            if limit and time.monotonic() - started > limit:
                raise RuntimeFailure(f"{self.name} does not answer; look whether it is up.")
            errors.seek(0)
            raise self._transport.explain(code, errors.read().decode(errors="replace").strip())
