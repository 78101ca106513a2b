"""The channels that their readers can do without, by least squares.

A layer reads patches x of its input, in blocks of columns, one block B for each channel. Without the channels of a set
R the best weights W_K on the others are the least-squares ones, and the output errs by

    error(R) = tr(W_R S W_R^T),    S = xx_RR - xx_RK xx_KK^-1 xx_KR = ((xx^-1)_RR)^-1

so with P = xx^-1 removing one more block costs tr(W_B (P_BB)^-1 W_B^T) exactly, after which

    W <- W - W_B (P_BB)^-1 P_B:        P <- P - P_:B (P_BB)^-1 P_B:

This is the algebra of the optimal brain surgeon (Hassibi and Stork, 1993) on blocks. Removing the cheapest block again
and again gives an order of removal with the error at each step.

A layer with thousands of columns is known by n rows X [n, d] in place of xx = X^T X + p I, and then P is not needed:
with H = (X X^T + p I)^-1, Z = H X and Q = (I - X_B^T Z_B)^-1 X_B^T, removing a block costs

    p |W_B|^2 + p <W_B, W_B Q Z_B>,    after which    W <- W + W_B Q Z:    Z <- Z + Z_B Q Z
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

#: Input dimensions up to which all taps of a window count on their own; above, a channel is one column, and the taps of
#: a window are as many outputs.
DIMENSIONS = 1200
#: Values of blocks that are looked at together.
BLOCKS = 2**20
#: Share of the mean variance that is added to each column's, so that xx has an inverse.
RIDGE = 1e-6


class Reader(Protocol):
    """A layer that reads the channels of a group, while channels are removed."""

    def prices(self, count: int) -> np.ndarray:
        """The error that removing each of the group's ``count`` channels would add; 0 for a removed channel."""
        ...

    def remove(self, place: int) -> None:
        """Removes a channel, if the layer reads it, and gives its part to the others."""
        ...


class Elimination:
    """One layer's columns while blocks of them are removed.

    ``moments`` are the centred second moments [d, d] of the layer's inputs, ``weights`` its weights [F, d]. ``blocks``
    [n, b] are the columns of each channel that may go, and ``places`` [n] the places of these channels in the group.
    Errors are multiplied by ``scale``.
    """

    def __init__(
        self, moments: np.ndarray, weights: np.ndarray, blocks: np.ndarray, places: np.ndarray, scale: float
    ) -> None:
        ridge = max(RIDGE * float(np.diagonal(moments).mean()), 1e-30)
        self._inverse = np.linalg.inv(moments.astype(np.float64) + ridge * np.eye(len(moments)))
        self.weights = weights.astype(np.float64)
        self._blocks, self._places, self._scale = blocks, places, scale
        self._gone = np.zeros(len(blocks), bool)

    def prices(self, count: int) -> np.ndarray:
        """The error that removing each of the group's ``count`` channels would add; 0 for a removed channel."""
        blocks = self._blocks
        inner = self._inverse[blocks[:, :, None], blocks[:, None, :]]
        inner[self._gone] = np.eye(blocks.shape[1])
        columns = self.weights[:, blocks].transpose(1, 0, 2)
        halves = columns @ np.linalg.inv(inner)
        found = np.zeros(count)
        found[self._places] = np.maximum((halves * columns).sum((1, 2)), 0.0) * self._scale
        found[self._places[self._gone]] = 0.0
        return found

    def remove(self, place: int) -> None:
        """Removes a channel, if the layer reads it, and gives its part to the others."""
        for block in np.flatnonzero(self._places == place):
            columns = self._blocks[block]
            rows = np.linalg.solve(self._inverse[np.ix_(columns, columns)], self._inverse[columns])
            self.weights -= self.weights[:, columns] @ rows
            self._inverse -= self._inverse[:, columns] @ rows
            self._gone[block] = True
            self.weights[:, columns] = 0.0


class SampledElimination:
    """One layer's many columns while blocks of them are removed; see ``Elimination``.

    ``rows`` [n, d] and ``level`` stand for the moments X^T X + p I.
    """

    def __init__(
        self, rows: np.ndarray, level: float, weights: np.ndarray, blocks: np.ndarray, places: np.ndarray, scale: float
    ) -> None:
        self._x = rows.astype(np.float64)
        gram = self._x @ self._x.T
        self._level = level + max(RIDGE * (float(np.trace(gram)) / rows.shape[1] + level), 1e-30)
        self._z = np.linalg.solve(gram + self._level * np.eye(len(gram)), self._x)
        self.weights = weights.astype(np.float64)
        self._blocks, self._places, self._scale = blocks, places, scale
        self._gone = np.zeros(len(blocks), bool)

    def prices(self, count: int) -> np.ndarray:
        """The error that removing each of the group's ``count`` channels would add; 0 for a removed channel."""
        found = np.zeros(count)
        left = np.flatnonzero(~self._gone)
        at_once = max(1, BLOCKS // (self._blocks.shape[1] * (len(self._x) + len(self.weights))))
        for start in range(0, len(left), at_once):
            some = left[start : start + at_once]
            blocks = self._blocks[some]
            columns = self.weights[:, blocks].transpose(1, 0, 2)
            moved = columns @ self._gain(blocks) @ self._z[:, blocks].transpose(1, 0, 2)
            errors = (columns * (columns + moved)).sum((1, 2))
            found[self._places[some]] = np.maximum(errors, 0.0) * self._level * self._scale
        return found

    def remove(self, place: int) -> None:
        """Removes a channel, if the layer reads it, and gives its part to the others."""
        for block in np.flatnonzero(self._places == place):
            columns = self._blocks[block]
            gain = self._gain(columns[None])[0]
            self.weights += (self.weights[:, columns] @ gain) @ self._z
            self._z += (self._z[:, columns] @ gain) @ self._z
            self._gone[block] = True
            for array in (self.weights, self._z, self._x):
                array[:, columns] = 0.0

    def _gain(self, blocks: np.ndarray) -> np.ndarray:
        """Q [m, b, n] of blocks [m, b], by the smaller of two inverses."""
        x, z = (array[:, blocks].transpose(1, 0, 2) for array in (self._x, self._z))
        turned = x.transpose(0, 2, 1)
        if blocks.shape[1] <= len(self._x):
            return np.asarray(np.linalg.solve(np.eye(blocks.shape[1]) - turned @ z, turned))
        return np.asarray(turned @ np.linalg.inv(np.eye(len(self._x)) - z @ turned))


def elimination_order(readers: Sequence[Reader], count: int, steps: int) -> tuple[list[int], list[float]]:
    """The first ``steps`` of a group's ``count`` channels in the order of removal, and the error that each step added.

    The error is the sum over all readers.
    """
    order: list[int] = []
    added: list[float] = []
    while len(order) < steps:
        prices = np.sum([reader.prices(count) for reader in readers], axis=0)
        prices[order] = np.inf
        place = int(prices.argmin())
        order.append(place)
        added.append(float(prices[place]))
        for reader in readers:
            reader.remove(place)
    return order, added
