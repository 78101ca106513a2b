"""The near end of a worker (``edgekron.runtimes.agent.worker``): requests and answers over pipes of a child process.

The child is any command that ends up running a worker with its standard input and output connected: the Python of the
machine that measures, or one inside an emulator.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from typing import IO, TYPE_CHECKING, cast

from .errors import KilledError, OutOfTimeError, RuntimeFailure
from .worker import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from .messages import Message

_LONGEST_LAST_WORDS = 300


class Connection:
    """One worker process. Usable as a context manager; the process ends with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None, subject: str) -> None:
        """Starts ``command``; ``subject`` (the file it will run) is named in errors."""
        self._subject = subject
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(environment) if environment is not None else None,
            )
        except OSError as error:
            self._errors.close()
            raise RuntimeFailure(f"{command[0]} cannot be started ({error.strerror}); check the device.") from None
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        try:
            protocol = self.ask("hello", timeout=60)["protocol"]
        except BaseException:
            self.close()
            raise
        #: Seconds from starting the command to the worker's first answer.
        self.start_seconds = time.perf_counter() - started
        if protocol != PROTOCOL:
            self.close()
            raise RuntimeFailure(f"the worker speaks protocol {protocol}, not {PROTOCOL}; pack the agent again.")

    @property
    def pid(self) -> int:
        """The child's process number on this machine."""
        return self._process.pid

    def ask(self, do: str, *, timeout: float = 600, **arguments: object) -> Message:
        """Sends one request and waits for its answer.

        Raises ``RuntimeFailure`` with the sentence of a worker that refuses, with the end of one that died, and when
        an answer takes longer than ``timeout`` seconds (the worker is then killed).
        """
        try:
            self._requests.write((json.dumps({"do": do, **arguments}) + "\n").encode())
            self._requests.flush()
        except OSError:
            raise self._death(do) from None
        answer: Message = json.loads(self._line(do, timeout))
        if not answer.pop("ok"):
            raise RuntimeFailure(answer["error"])
        return answer

    def close(self) -> None:
        """Closes the pipes, on which the worker ends; a process that does not is killed."""
        with contextlib.suppress(OSError):  # an unsent rest of a request to a dead process
            self._requests.close()
        self._answers.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()  # it may be in the middle of something long, of which nobody wants to hear any more
        self.close()

    def _line(self, do: str, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        parts = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._process.kill()
                    raise OutOfTimeError(
                        f"{self._subject}: no answer to '{do}' in {timeout:g} seconds; the model is too slow for this "
                        "device, or the runtime hangs on it."
                    )
                part = os.read(self._answers.fileno(), 1 << 20)
                if not part:
                    raise self._death(do)
                parts.append(part)
                if b"\n" in part:
                    break
        # One answer a request, so nothing can follow the end of the line.
        return b"".join(parts)

    def _death(self, do: str) -> RuntimeFailure:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f", last words: {words[-1][:_LONGEST_LAST_WORDS]}" if words else ""
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        death = f"{self._subject}: the process died during '{do}' ({how}{last})"
        if code == -signal.SIGKILL:
            return KilledError(f"{death}; memory ran out.")
        return RuntimeFailure(
            f"{death}; the file is damaged, memory ran out, or the runtime does not work on this machine."
        )
