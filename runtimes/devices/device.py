"""The interface of devices, and their names on the command line.

=========================  ==========================================================================================
name                       device
=========================  ==========================================================================================
``local``                  this machine
``ssh:user@host[:port]``   a machine that the user's own OpenSSH client reaches
``adb:serial``             a phone or board that the system's ``adb`` lists
``emulated:pi4``           an emulated ARM board, which counts instructions
any other name             the entry of that name in a device file (``edgekron.runtimes.devices.file``)
=========================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgekron.runtimes.agent.messages import DescribeAnswer, Message, WorkStep

if TYPE_CHECKING:
    from pathlib import Path

#: Called with each step that a device reports while it works: {"done": 3, "total": 20, "text": "round 3 of 20"}.
Listener = Callable[[WorkStep], None]


class Device(Protocol):
    """A machine on which model files are run."""

    #: The name in reports, as given on the command line.
    name: str
    #: What its figures count: "second", or "instruction" where there is no clock worth reading.
    unit: str

    def put(self, file: Path) -> str:
        """Makes a file of this machine available there; gives the path by which requests name it on the device.

        A file is known by its content: what is there already is not sent again.
        """
        ...

    def run_agent(self, request: Message, listener: Listener | None = None) -> Message:
        """Has the agent carry out one request, waits for its end, and gives the answer, checked against its schema.

        The requests are those of ``edgekron.runtimes.agent.requests``. Raises ``RuntimeFailure`` with its sentence, or
        with one that says how the device failed.
        """
        ...

    def facts(self) -> DescribeAnswer:
        """What the device is: the answer to ``describe``."""
        ...

    def close(self) -> None:
        """Ends the work on the device and removes the files that were put there."""
        ...


@dataclass(frozen=True)
class Target:
    """The place of a device and its settings; one entry of a device file.

    ``on`` is a name of the table above. ``python`` is the interpreter that runs the agent on the device, ``folder`` the
    folder of the agent's files (both are paths of the device; None: the device's own choice). ``keep`` leaves the sent
    files on the device. ``ssh_config`` replaces the user's OpenSSH configuration. ``adb`` is a program of this machine,
    ``benchmark_model`` one of the device.
    """

    on: str
    python: str | None = None
    folder: str | None = None
    keep: bool = False
    ssh_config: str | None = None
    adb: str | None = None
    benchmark_model: str | None = None
