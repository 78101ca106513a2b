"""Machines that run model files: each carries out requests with the agent (``edgekron.runtimes.agent.main``)."""

from __future__ import annotations

from edgekron.runtimes.devices.device import Device, Listener, Message, Target
from edgekron.runtimes.devices.local import LocalDevice
from edgekron.runtimes.devices.opening import open_device

__all__ = ["Device", "Listener", "LocalDevice", "Message", "Target", "open_device"]
