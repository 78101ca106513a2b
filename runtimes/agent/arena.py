"""The tensor arenas of a TFLite file: the block of memory that holds every activation, planned before the first run.

==========  =================================================================================================
litert      bytes that LiteRT's own kernels plan, seen from the addresses of the activations: from the lowest
            to the end of the highest, scratch of the kernels between them included. XNNPACK keeps most
            activations to itself, so the plan is made without it.
micro       bytes that TensorFlow Lite for Microcontrollers allocates in all, as its recording allocator says
micro_head  the part of ``micro`` that holds activations and scratch; the rest describes the model
==========  =================================================================================================

On a microcontroller the arena is the budget. An arena is the same for every processor of one word size. These figures
are of the machine that runs the agent, mostly with 64 bits: descriptions of tensors and nodes are about twice as large
as on a 32-bit processor, activations are equal.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .backends import litert
from .errors import RuntimeFailure

if TYPE_CHECKING:
    from types import ModuleType

_MAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)$", re.MULTILINE)
_RECORDED = re.compile(r"Arena allocation (total|head) (\d+) bytes")

#: The arena that TensorFlow Lite for Microcontrollers is given; it uses what it needs of it.
_ROOM = 256 * 2**20


@dataclass(frozen=True)
class Arena:
    """Bytes; None where the runtime is missing or cannot run the file, and ``note`` then says why."""

    litert: int | None
    micro: int | None
    micro_head: int | None
    note: str | None


def arena(file: str | Path) -> Arena:
    """The arenas of a ``.tflite`` file. Raises ``RuntimeFailure`` for another file, or one that cannot be opened."""
    if Path(file).suffix.lower() != ".tflite":
        raise RuntimeFailure(f"{file} has no tensor arena; only .tflite files have.")
    total, head, note = _micro(Path(file))
    return Arena(_litert(Path(file)), total, head, note)


def _litert(file: Path) -> int | None:
    session = litert.load(file, delegate=False)
    maps = _mappings()
    spans: dict[int, tuple[int, int]] = {}
    for start, length in session.addresses():
        home = next(((low, name) for low, high, name in maps if low <= start < high), None)
        if home is None or home[1].endswith(file.name):
            continue  # a constant, read from the file itself
        low, high = spans.get(home[0], (start, start))
        spans[home[0]] = min(low, start), max(high, start + length)
    return sum(high - low for low, high in spans.values()) or None


def _mappings() -> list[tuple[int, int, str]]:
    try:
        text = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    return [(int(low, 16), int(high, 16), name) for low, high, name in _MAP.findall(text)]


def _micro(file: Path) -> tuple[int | None, int | None, str | None]:
    try:
        runtime = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    except ImportError:
        return None, None, "the arena for microcontrollers needs `pip install --pre tflite-micro`"
    try:
        recorded = dict(_RECORDED.findall(_printed(runtime, file)))
        return int(recorded["total"]), int(recorded["head"]), None
    except KeyError:
        return None, None, "this version of TensorFlow Lite for Microcontrollers does not tell its allocations"
    except Exception as error:  # noqa: BLE001 - whatever the interpreter raises, the file does not run there
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return None, None, f"TensorFlow Lite for Microcontrollers does not run this file ({reason[0]})"


def _printed(runtime: ModuleType, file: Path) -> str:
    """What the recording allocator prints: it writes to the descriptors, past Python."""
    with tempfile.TemporaryFile() as said:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        try:
            runtime.Interpreter.from_file(str(file), arena_size=_ROOM).print_allocations()
        finally:
            sys.stdout.flush()
            for number, copy in zip((1, 2), kept):
                os.dup2(copy, number)
                os.close(copy)
        said.seek(0)
        return said.read().decode(errors="replace")
