"""TBD."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

from .adb import _SERIAL, FOLDER, AdbTransport
from .board import Board
from .device import Device, Target

if TYPE_CHECKING:
    from .device import Device, Target


def open_device(name: str, target: Target | None = None) -> Device:
    """The device of a name, connected; ``RuntimeFailure`` when it cannot be reached.

    ``target`` takes the place of what the name says, or of a device file's entry of that name.
    """
    if target is None:
        from edgekron.runtimes.devices.file import find

        target = find(name)
    kind, _, place = target.on.partition(":")
    if kind == "local" and not place:
        from edgekron.runtimes.devices.local import LocalDevice

        return LocalDevice(name)
    if kind == "ssh" and place:
        from edgekron.runtimes.devices.ssh import open_ssh

        return open_ssh(name, place, target)
    if kind == "adb" and place:
        from edgekron.runtimes.devices.opening import open_adb

        return open_adb(name, place, target)
    if kind == "emulated" and place:
        from edgekron.runtimes.devices.emulation.device import open_emulated

        return open_emulated(place, alias=name)
    raise RuntimeFailure(
        f"there is no device {name!r}; use local, ssh:user@host, adb:serial, emulated:pi4, or a name of a device file "
        "(edgekron devices list)."
    )


def open_adb(name: str, serial: str, target: Target) -> Device:
    """A connected device. Raises ``RuntimeFailure`` that says why it cannot be reached and what to do."""
    if not _SERIAL.fullmatch(serial):
        raise RuntimeFailure(f"{serial!r} is no serial number; see: adb devices.")
    program = target.adb or "adb"
    if shutil.which(program) is None:
        raise RuntimeFailure(f"{name} needs {program}; install it (sudo apt install adb) or name it with --adb.")
    transport = AdbTransport(name, serial, program)
    if target.benchmark_model:
        from edgekron.runtimes.devices.benchmark_model import BenchmarkModelDevice

        return BenchmarkModelDevice(name, transport, target.benchmark_model, target.folder or FOLDER, target.keep)
    return Board(name, transport, target, FOLDER)
