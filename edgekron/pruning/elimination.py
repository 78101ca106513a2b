"""The channels that their readers can do without, by least squares.

A layer reads patches x of its input, in blocks of columns, one block B for each channel. Without the channels of a set
R the best weights W_K on the others are the least-squares ones, and the output errs by

    error(R) = tr(W_R S W_R^T),    S = xx_RR - xx_RK xx_KK^-1 xx_KR = ((xx^-1)_RR)^-1

so with P = xx^-1 removing one more block costs tr(W_B (P_BB)^-1 W_B^T) exactly, after which

    W <- W - W_B (P_BB)^-1 P_B:        P <- P - P_:B (P_BB)^-1 P_B:

This is the algebra of the optimal brain surgeon (Hassibi and Stork, 1993) on blocks. Removing the cheapest block again
and again gives an order of removal with the error at each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Input dimensions up to which all taps of a window count on their own; above, a channel is one column, and the taps of
#: a window are as many outputs.
DIMENSIONS = 1200
#: Share of the mean variance that is added to each column's, so that xx has an inverse.
RIDGE = 1e-6


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


def elimination_order(readers: Sequence[Elimination], count: int, steps: int) -> tuple[list[int], list[float]]:
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
