"""Mixed precision where the hardware has it: bfloat16 autocast, with weights, statistics and losses in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch

from .settings import Precision

_CPU_INFO = Path("/proc/cpuinfo")
#: Words of the kernel for instructions that multiply bfloat16, on x86 and on Arm.
_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        words = _CPU_INFO.read_text().split()
    except OSError:
        return False
    return not _FLAGS.isdisjoint(words)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    wanted = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)
