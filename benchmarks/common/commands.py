"""Runs ``edgekron`` as a user would, and keeps a list of the commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Commands:
    """Runs ``edgekron`` in a folder; ``ran`` has each command and its seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[dict[str, Any]] = []

    def __call__(self, *words: str) -> str:
        """Standard output of one command. Raises ``CalledProcessError``."""
        print("edgekron", *words, flush=True)
        started = time.perf_counter()
        program = [sys.executable, "-m", "edgekron.cli.main", *words]
        done = subprocess.run(program, cwd=self.folder, check=True, capture_output=True, text=True)
        self.ran.append({"command": "edgekron " + " ".join(words), "seconds": time.perf_counter() - started})
        return done.stdout

    def json(self, *words: str) -> dict[str, Any]:
        """The JSON that a command prints with ``--json``."""
        printed: dict[str, Any] = json.loads(self(*words, "--json"))
        return printed

    def measured(self, command: str, *words: str) -> dict[str, Any]:
        """The JSON that ``bench`` or ``evaluate`` writes to a file."""
        name = f"{command}.json"
        self(command, *words, "--json", name, "--force")
        written: dict[str, Any] = json.loads((self.folder / name).read_text())
        return written
