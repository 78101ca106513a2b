"""The exceptions of all runtimes and devices."""

from __future__ import annotations


class RuntimeFailure(ValueError):  # noqa: N818 - RuntimeError is Python's own
    """A file, a runtime or a device that cannot be used: one sentence with its name and a remedy."""


class OutOfTimeError(RuntimeFailure):
    """The work took longer than it may; it says nothing about the file."""


class KilledError(RuntimeFailure):
    """The process was killed: nothing but a person and the kernel's search for memory does that."""
