"""Memory that this process holds and does not need."""

from __future__ import annotations

import ctypes
import sys

#: Blocks of at least this many bytes go back as soon as they are freed, and the number that glibc has for the setting.
LARGE_BLOCK, M_MMAP_THRESHOLD = 2**20, -3


def give_back() -> None:
    """Hands freed memory back to the system.

    glibc keeps freed memory for later requests, up to hundreds of megabytes after matrices of some ten each; the rest
    of one layer would stand beside the moments of the next.
    """
    _glibc("malloc_trim", 0)


def give_back_large_blocks() -> None:
    """Has this process hand large blocks back as soon as they are freed, from now on.

    Left alone, glibc keeps later large blocks in its heap once the first ones are freed, and the heap gets holes. The
    setting is one of the whole process, so a program makes it, and never a library.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK)


def _glibc(name: str, *values: int) -> None:
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*values)
