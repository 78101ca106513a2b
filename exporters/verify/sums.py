"""The distance of two arrays in the mean square, gathered in pieces: error = |candidate - reference| / |reference|."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Sums:
    """What the pieces so far add up to."""

    pieces: int = 0
    noise: float = 0.0
    energy: float = 0.0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Takes in one piece; both arrays have one shape."""
        r = reference.astype(np.float64).ravel()
        gap = candidate.astype(np.float64).ravel() - r
        self.pieces += 1
        self.noise += float(gap @ gap)
        self.energy += float(r @ r)

    @property
    def error(self) -> float:
        """The relative error; infinite for a value where nothing should be, or one that is not finite."""
        if not math.isfinite(self.noise):
            return math.inf
        return math.sqrt(self.noise / self.energy) if self.energy else (math.inf if self.noise else 0.0)
