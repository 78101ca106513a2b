"""``adb:serial``: a phone or board that the system's ``adb`` lists.

A device that has Python is a board like any other (``edgekron.runtimes.devices.board``); for one that has none, the
entry of a device file names a program that measures in its place (``edgekron.runtimes.devices.opening``).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.schema import plain

from .board import LostError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where the shell user of a phone may write and run.
FOLDER = "/data/local/tmp/edgekron"

#: What may be a serial number: nothing that looks like an option.
SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_SHORT = 60.0

#: What adb says, and what the user can do about it. The first that fits counts.
_REASONS = (
    (r"unauthorized", "does not trust this machine yet; unlock it and allow debugging"),
    (r"no permissions", "may not be opened by this user; add a udev rule for it (see adb's own words: adb devices)"),
    (r"more than one device", "is not named well enough; give its serial number (adb devices)"),
    (r"device '.*' not found|no devices", "is not there; see: adb devices"),
)
_GONE = re.compile(r"device offline|closed|protocol fault|device still|not found|cannot connect to daemon")


class AdbTransport:
    """Commands through ``adb shell``, which the phone's shell parses."""

    def __init__(self, name: str, serial: str, program: str) -> None:
        self.serial = serial
        self._name = name
        self._adb = [program, "-s", serial]
        self._connected = False

    def command(self, words: Sequence[str]) -> list[str]:
        """See ``Transport.command``: the device's shell gets every word quoted."""
        return [*self._adb, "shell", shlex.join(words)]

    def connect(self) -> None:
        """See ``Transport.connect``: asks for the state of the device."""
        code, state, said = self.run([*self._adb, "get-state"])
        if code or state.strip() != "device":
            raise self.explain(code or 1, said or state)
        self._connected = True

    def push(self, source: str, destination: str) -> None:
        """Copies a file of this machine to the device; ``RuntimeFailure`` where that fails."""
        code, printed, said = self.run([*self._adb, "push", source, destination], timeout=None)
        if code:
            raise self.explain(code, said or printed)

    def explain(self, code: int, said: str) -> RuntimeFailure:
        """See ``Transport.explain``."""
        last = plain((said.splitlines() or [""])[-1], 200)
        if self._connected and (_GONE.search(said) or not said):
            return LostError(f"the connection to {self._name} was lost ({last}); look at its cable or network.")
        for pattern, meaning in _REASONS:
            if re.search(pattern, said):
                return RuntimeFailure(f"{self._name} {meaning}.")
        if "No space left" in said:
            return RuntimeFailure(f"{self._name}: the disk of the device is full; free some room there.")
        return RuntimeFailure(f"{self._name}: the device's answer is missing (exit code {code}: {last}).")

    def run(self, command: Sequence[str], timeout: float | None = _SHORT) -> tuple[int, str, str]:
        """(exit code, output, errors) of a command of this machine."""
        try:
            done = subprocess.run(
                list(command), capture_output=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise RuntimeFailure(f"{self._name} does not answer; look at its cable or network.") from None
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()

    def close(self) -> None:
        """See ``Transport.close``: adb keeps its own connection."""
