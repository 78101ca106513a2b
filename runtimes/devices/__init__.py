"""Machines that run model files: each starts agents (``edgekron.runtimes.agent``) and gives them files."""

from __future__ import annotations

from edgekron.runtimes.devices.connection import Connection
from edgekron.runtimes.devices.device import Device, open_device
from edgekron.runtimes.devices.local import LocalDevice

__all__ = ["Connection", "Device", "LocalDevice", "open_device"]
