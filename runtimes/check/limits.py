"""The kinds of limits that a budget can set, and one limit.

``Evidence`` says by what a limit is judged: the file's bytes alone (``FILE``), a data set (``DATA``), one process that
has the model open (``LOADED``), a few such processes (``MEMORY``), or a measurement of the latency (``TIMED``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .units import show


class Evidence(IntEnum):
    """The evidence that a limit is judged by; a higher kind takes longer."""

    FILE = 0
    DATA = 1
    LOADED = 2
    MEMORY = 3
    TIMED = 4


@dataclass(frozen=True)
class Kind:
    """A kind of limit: its key in a budget, its title in tables, and its quantity (see ``units``)."""

    key: str
    title: str
    quantity: str
    evidence: Evidence
    #: The limit is a least one, not a largest one.
    least: bool = False
    #: The budget names one limit for each kind of operator.
    table: bool = False


KINDS = {
    kind.key: kind
    for kind in (
        Kind("latency_median", "latency, median", "seconds", Evidence.TIMED),
        Kind("latency_p95", "latency, 95th percentile", "seconds", Evidence.TIMED),
        Kind("latency_vs_reference", "latency over the reference's", "ratio", Evidence.TIMED),
        Kind("latency_vs_baseline", "latency over the baseline's", "ratio", Evidence.TIMED),
        Kind("file_size", "file size", "bytes", Evidence.FILE),
        Kind("memory_runtime", "memory, runtime only", "bytes", Evidence.MEMORY),
        Kind("memory_loaded", "memory, model loaded", "bytes", Evidence.MEMORY),
        Kind("memory_peak", "memory, peak", "bytes", Evidence.MEMORY),
        Kind("memory_steady", "memory, steady", "bytes", Evidence.MEMORY),
        Kind("arena", "tensor arena", "bytes", Evidence.LOADED),
        Kind("arena_micro", "arena on a microcontroller", "bytes", Evidence.LOADED),
        Kind("top1", "top-1 accuracy", "fraction", Evidence.DATA, least=True),
        Kind("operators", "operators", "count", Evidence.FILE, table=True),
        Kind("not_delegated", "operators not delegated", "count", Evidence.LOADED),
        Kind("instructions", "instructions of one inference", "count", Evidence.LOADED),
        Kind("instructions_vs_reference", "instructions over the reference's", "ratio", Evidence.LOADED),
        Kind("instructions_vs_baseline", "instructions over the baseline's", "ratio", Evidence.LOADED),
    )
}


@dataclass(frozen=True)
class Limit:
    """One number that must not be exceeded (or, for ``kind.least``, must be reached)."""

    kind: Kind
    bound: float
    #: The kind of operator counted, where ``kind.table``.
    operator: str = ""

    @property
    def key(self) -> str:
        """The name in reports, such as "latency_median" or "operators.TRANSPOSE"."""
        return f"{self.kind.key}.{self.operator}" if self.operator else self.kind.key

    @property
    def title(self) -> str:
        """The name in tables."""
        return f"{self.kind.title}: {self.operator}" if self.operator else self.kind.title

    def shown(self) -> str:
        """The bound in words."""
        return f"{'at least' if self.kind.least else 'at most'} {show(self.bound, self.kind.quantity)}"
