"""Images to train a network on, by row number, in memory or read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgekron.errors import UserError


@dataclass(frozen=True)
class Examples:
    """Images and labels. ``fetch`` gives float32 [n, C, H, W] for row numbers [n]; ``labels`` is int64 [N], -1 where
    unknown; ``rows`` are the row numbers that belong to this set.
    """

    name: str
    fetch: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return bool(len(self)) and int(self.labels[self.rows].min()) >= 0

    def split(self, share: float, seed: int) -> tuple[Examples, Examples]:
        """(the rest, a share of at least one held out), drawn by ``seed``. Raises ``UserError`` for fewer than two."""
        if len(self) < 2:
            raise UserError(f"{self.name} holds {len(self)} images; training and its validation need at least two.")
        count = min(max(1, round(share * len(self))), len(self) - 1)
        order = np.random.default_rng(seed).permutation(self.rows)
        return replace(self, rows=np.sort(order[count:])), replace(self, rows=np.sort(order[:count]))

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(images, row numbers) in order, every ``ranks``-th batch from ``rank``; the last may be smaller."""
        for start in range(rank * size, len(self), size * ranks):
            rows = self.rows[start : start + size]
            yield self.fetch(rows), rows


def from_arrays(name: str, images: np.ndarray, labels: np.ndarray | None = None) -> Examples:
    """Examples in memory: float32 [N, C, H, W], and int64 [N] where they are known."""
    known = np.full(len(images), -1, np.int64) if labels is None else labels.astype(np.int64)
    return Examples(name, lambda rows: images[rows], known, np.arange(len(images)))
