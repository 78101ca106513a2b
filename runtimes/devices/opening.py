"""Opens a device by its name; the kind of the device is imported when one is opened."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from .device import Device, Target


def open_device(name: str, target: Target | None = None) -> Device:
    """The device of a name (``device`` lists them), connected; ``RuntimeFailure`` when it cannot be reached.

    ``target`` takes the place of what the name says, or of a device file's entry of that name.
    """
    if target is None:
        from .file import find

        target = find(name)
    kind, _, place = target.on.partition(":")
    if kind == "local" and not place:
        from .local import LocalDevice

        return LocalDevice(name)
    if kind == "ssh" and place:
        from .ssh import open_ssh

        return open_ssh(name, place, target)
    if kind == "adb" and place:
        return open_adb(name, place, target)
    if kind == "emulated" and place:
        from .emulation.device import open_emulated

        return open_emulated(place, alias=name)
    raise RuntimeFailure(
        f"there is no device {name!r}; use local, ssh:user@host, adb:serial, emulated:pi4, or a name of a device file "
        "(edgekron devices list)."
    )


def open_adb(name: str, serial: str, target: Target) -> Device:
    """A phone or board of ``adb``, connected; ``RuntimeFailure`` says why one cannot be reached.

    Where the target names a ``benchmark_model`` program, the device needs no Python: that program measures.
    """
    from . import adb

    if not adb.SERIAL.fullmatch(serial):
        raise RuntimeFailure(f"{serial!r} is no serial number; see: adb devices.")
    program = target.adb or "adb"
    if shutil.which(program) is None:
        raise RuntimeFailure(f"{name} needs {program}; install it (sudo apt install adb) or name it with --adb.")
    transport = adb.AdbTransport(name, serial, program)
    if target.benchmark_model:
        from .benchmark_model import BenchmarkModelDevice

        return BenchmarkModelDevice(name, transport, target.benchmark_model, target.folder or adb.FOLDER, target.keep)
    from .board import Board

    return Board(name, transport, target, adb.FOLDER)
