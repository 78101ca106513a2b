"""What a device is, and how one is named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgekron.runtimes.devices.local import LocalDevice
from edgekron.runtimes.errors import RuntimeFailure

if TYPE_CHECKING:
    from pathlib import Path

    from edgekron.runtimes.devices.connection import Connection


class Device(Protocol):
    """A machine on which model files are run, each in a fresh process."""

    #: The name in reports, as given on the command line.
    name: str

    def put(self, file: Path) -> str:
        """Makes a file of this machine available there; gives its path on the device."""
        ...

    def start(self, subject: str, threads: int = 1) -> Connection:
        """A fresh agent; ``subject`` names what it is for in errors, ``threads`` is what libraries may use."""
        ...

    def close(self) -> None:
        """Removes what was put there."""
        ...


def open_device(name: str) -> Device:
    """The device of a name; ``RuntimeFailure`` for an unknown one."""
    if name == "local":
        return LocalDevice()
    raise RuntimeFailure(f"there is no device {name!r}; use local.")
