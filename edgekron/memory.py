"""What this process holds of the system's memory."""

from __future__ import annotations

import ctypes
import sys

#: Blocks of at least this many bytes go back as soon as they are freed, and the number that glibc has for the setting.
LARGE_BLOCK, M_MMAP_THRESHOLD = 2**20, -3


def give_back() -> None:
    """Hands freed memory back to the system.

    glibc keeps it for later requests, up to hundreds of megabytes after matrices of some ten each; a layer's leftovers
    would stand beside the next one's moments.
    """
    _glibc("malloc_trim", 0)


def give_back_large_blocks() -> None:
    """Has this process hand large blocks back as soon as they are freed, from now on.

    glibc learns from the first large blocks that are freed to keep such blocks in its heap, where they leave holes.
    This is a setting of the whole process, so it is for programs to make, not for a library that a program uses.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK)


def _glibc(name: str, *values: int) -> None:
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*values)
