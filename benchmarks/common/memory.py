"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def resident(field: str) -> int:
    """Bytes of a memory field of this process: ``VmRSS`` (now) or ``VmHWM`` (at most since ``forget_peak``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def forget_peak() -> None:
    """Begins ``VmHWM`` again."""
    Path("/proc/self/clear_refs").write_text("5")
