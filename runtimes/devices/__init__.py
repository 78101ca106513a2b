"""Machines that run model files: each carries out requests with the agent (``edgekron.runtimes.agent``)."""

from __future__ import annotations

from edgekron.runtimes.devices.device import Device, Listener, Message, Target, open_device
from edgekron.runtimes.devices.local import LocalDevice

__all__ = ["Device", "Listener", "LocalDevice", "Message", "Target", "open_device"]
