"""Emulated ARM boards: the runtimes' real ARM code under qemu, counted in instructions and never in time.

``build`` makes the boards of ``boards`` from packages (``packages``, ``wheels``) and keeps them in an
``installation``; ``count`` counts instructions on one. ``machine`` and ``boot`` make and start a virtual machine that
is driven over SSH. ``device`` shows both as devices.
"""

from __future__ import annotations

from .boards import BOARDS, EmulatedBoard, find_board
from .build import build
from .count import count_instructions
from .installation import Installation, cache_folder
from .results import FileCount, InstructionReport

__all__ = [
    "BOARDS",
    "EmulatedBoard",
    "FileCount",
    "Installation",
    "InstructionReport",
    "build",
    "cache_folder",
    "count_instructions",
    "find_board",
]
