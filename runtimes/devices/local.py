"""The machine of the caller as a device: the same packed agent that a board is given, as a child process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.agent.rounds import start_worker
from edgekron.runtimes.archive import archive

from .answers import listen
from .device import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.runtimes.agent.connection import Connection
    from edgekron.runtimes.agent.messages import DescribeAnswer, Message

#: Seconds that an agent may take to end.
_PATIENCE = 10.0


class LocalDevice:
    """The machine of the caller: none of its modules is loaded beside a model, and the work ends with the caller."""

    unit = "second"

    def __init__(self, name: str = "local") -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="edgekron-agent-")
        #: The packed agent; ``python AGENT work`` is a worker.
        self.agent = Path(self._folder.name) / "agent.pyz"
        self.agent.write_bytes(archive())

    def put(self, file: Path) -> str:
        """The file itself: it is here already."""
        return str(file)

    def run_agent(self, request: Message, listener: Listener | None = None) -> Message:
        """See ``Device.run_agent``."""
        return self._call(["run"], request["do"], (json.dumps(request) + "\n").encode(), listener)

    def start(self, subject: str, threads: int = 1) -> Connection:
        """A worker of its own, for what needs many answers; ``subject`` (the file it will run) is named in errors."""
        return start_worker(subject, threads, [sys.executable, str(self.agent), "work"])

    def facts(self) -> DescribeAnswer:
        """See ``Device.facts``."""
        return cast("DescribeAnswer", self._call(["describe"], "describe"))

    def close(self) -> None:
        """Removes the agent's file."""
        self._folder.cleanup()

    def _call(self, words: Sequence[str], what: str, data: bytes = b"", listener: Listener | None = None) -> Message:
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [sys.executable, str(self.agent), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # What a worker that is killed leaves behind goes with our own folder.
                env={**os.environ, "TMPDIR": self._folder.name},
            ) as process,
        ):
            requests = cast("IO[bytes]", process.stdin)
            try:
                with contextlib.suppress(BrokenPipeError):  # it died at once; its last words say why
                    requests.write(data)
                    requests.flush()
                answer = listen(cast("IO[bytes]", process.stdout), what, self.name, listener)
            finally:
                # The agent ends when its input closes, whatever it is doing; what it leaves is removed after that.
                with contextlib.suppress(BrokenPipeError):
                    requests.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE)
                process.kill()
            if answer is None:
                process.wait()
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RuntimeFailure(f"the agent on this machine ended without an answer ({' '.join(last)}).")
        return answer
