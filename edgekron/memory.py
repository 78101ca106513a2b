"""What this process holds of the system's memory."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Hands freed memory back to the system.

    glibc keeps it for later requests, up to hundreds of megabytes after matrices of some ten each; a layer's leftovers
    would stand beside the next one's moments.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
