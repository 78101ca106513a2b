"""Memory of one process, as five numbers in bytes.

==========  ================================================================================================
file        the model file on disk (weights kept in a second file are not counted)
runtime     resident memory of the fresh process once the runtime is imported and before any model is opened
loaded      resident memory when the model is ready
peak        the highest resident memory from just before loading until now
steady      resident memory after the warm inferences
==========  ================================================================================================

Resident memory (RSS, from ``smaps_rollup``) counts a shared library in full, as a board pays for a library that only
the model uses; PSS would divide the library among the processes that happen to run at the same time. The cost of the
model itself is ``steady - runtime``. The numbers exist on Linux only; elsewhere they are None.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .messages import MemoryNumbers

_SELF = Path("/proc/self")


@dataclass(frozen=True)
class Memory:
    """Five numbers in bytes; None where the system does not tell."""

    file: int
    runtime: int | None
    loaded: int | None
    peak: int | None
    steady: int | None

    @staticmethod
    def read(numbers: MemoryNumbers) -> Memory:
        """The numbers of an agent's answer."""
        return Memory(numbers["file"], numbers["runtime"], numbers["loaded"], numbers["peak"], numbers["steady"])

    def to_json(self) -> dict[str, int | None]:
        """The five numbers by name."""
        return asdict(self)


def resident() -> int | None:
    """Bytes of this process that are in RAM now."""
    return _field("smaps_rollup", "Rss") or _field("status", "VmRSS")


def peak() -> int | None:
    """The highest ``resident`` since the start of the process or the last ``reset_peak``."""
    # The kernel keeps VmHWM in a counter that lags by some pages; what is resident now is a lower bound.
    known = [value for value in (_field("status", "VmHWM"), resident()) if value is not None]
    return max(known, default=None)


def reset_peak() -> bool:
    """Starts a new ``peak`` from now on; False if the kernel does not allow that."""
    try:
        (_SELF / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _field(file: str, name: str) -> int | None:
    try:
        text = (_SELF / file).read_text()
    except OSError:
        return None
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
