"""The machine it runs on as a device: agents are child processes of the running Python."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from edgekron.runtimes.archive import archive
from edgekron.runtimes.devices.connection import Connection

#: Environment variables by which numerical libraries take their number of threads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalDevice:
    """Runs the same packed agent that a board is given, so nothing of the caller's modules is loaded beside a model."""

    name = "local"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgekron-agent-")
        self._agent = Path(self._folder.name) / "agent.pyz"
        self._agent.write_bytes(archive())

    def put(self, file: Path) -> str:
        """The file itself: it is here already."""
        return str(file)

    def start(self, subject: str, threads: int = 1) -> Connection:
        """See ``Device.start``."""
        variables = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        return Connection([sys.executable, str(self._agent)], variables, subject)

    def close(self) -> None:
        """Removes the agent's file."""
        self._folder.cleanup()
