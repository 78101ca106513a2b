"""A teacher's answers, kept where there is room, so that the teacher need not look at an image twice.

Answers are rounded to float16 whether they are kept or not: a run that was taken up again, with nothing kept yet, gets
the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

#: Share of the memory that is free when training begins.
SHARE = 0.25

Responses = dict[str, Tensor]


class ResponseCache:
    """Answers by (variant, row) for ``rows`` images in ``variants`` versions each, and as they are (variant -1).

    Nothing is kept where all answers would take more than ``limit`` bytes, by default a share of the free memory.
    """

    def __init__(self, rows: int, variants: int, limit: int | None = None) -> None:
        self._rows, self._variants = rows, variants
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._limit = int(SHARE * free) if limit is None else limit
        self._kept: Responses = {}
        self._known = torch.zeros(variants + 1, rows, dtype=torch.bool)
        self._open = rows > 0

    def get(self, rows: Tensor | None, variant: int, ask: Callable[[], Mapping[str, Tensor]]) -> Responses:
        """The answers for ``rows``, from memory where all are known, else by ``ask``; float32."""
        slot = variant + 1
        kept = rows is not None and self._open and slot <= self._variants
        if kept and bool(self._known[slot, rows].all()):
            return {name: values[slot, rows].float() for name, values in self._kept.items()}
        found = {name: value.detach().half() for name, value in ask().items()}
        if kept and self._room(found):
            for name, value in found.items():
                self._kept[name][slot, rows] = value.cpu()
            self._known[slot, rows] = True
        return {name: value.float() for name, value in found.items()}

    def _room(self, found: Responses) -> bool:
        """Makes room for all answers at the first of them, or finds that there is none."""
        if not self._kept:
            each = sum(value[0].numel() for value in found.values())
            self._open = 2 * each * self._known.numel() <= self._limit
            if self._open:
                shape = tuple(self._known.shape)
                self._kept = {
                    name: torch.empty(*shape, *value.shape[1:], dtype=torch.float16) for name, value in found.items()
                }
        return self._open
