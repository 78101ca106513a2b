"""Machines that run model files; on each of them the agent (``edgekron.runtimes.agent``) does the work.

    with closing(open_device("ssh:pi@kitchen")) as device:
        bench(["small.onnx"], device=device)

``device`` says what a device is and how one is named; ``local``, ``ssh``, ``adb`` and ``emulation`` are the kinds,
``opening`` finds the right one, ``file`` reads the names that users give to their devices.
"""

from __future__ import annotations

from .device import Device, Listener, Target
from .local import LocalDevice
from .opening import open_device

__all__ = ["Device", "Listener", "LocalDevice", "Target", "open_device"]
