r"""Intervals from a handful of independent numbers, by ranks: no shape of the noise is assumed, outliers hardly count.

**One sample.** The estimate is the Hodges-Lehmann pseudomedian, the median of all :math:`(x_i + x_j) / 2` with
:math:`i \le j`. Its interval inverts the Wilcoxon signed-rank test: it goes from the c-th smallest of these averages to
the c-th largest, with the largest c that keeps

.. math:: 2 \, P(T \le c - 1) \le 1 - \text{level},

where T sums the ranks that get a plus when n fair coins sign the ranks 1 to n. For symmetric noise, and the
log-ratio of a file to itself is symmetric under any noise, the interval covers the true value at least as often as
its level says, for every n. A percentile bootstrap of 7 to 20 numbers is too narrow: it covers 85 to 92 times in 100.

**Two samples.** The estimate of the shift is the median of all :math:`x_i - y_j`; its interval inverts the Mann-Whitney
test in the same way.

Source: Hodges and Lehmann, Estimates of location based on rank tests, Ann. Math. Statist. 34 (1963); Hollander, Wolfe
and Chicken, Nonparametric Statistical Methods, 3rd edition, sections 3.3 and 4.3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .statistics import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

#: With fewer numbers no interval of 95 % exists: two to the power of five signs are not enough.
FEWEST = 6


def pseudomedian(values: Sequence[float], level: float = 0.95) -> Interval:
    """The centre of ``values``, in their unit, with its interval.

    Raises ``ValueError`` when there are too few values for an interval of this level (fewer than ``FEWEST`` at 95 %).
    """
    x = np.asarray(values, np.float64)
    averages = np.sort(((x[:, None] + x[None, :]) / 2)[np.triu_indices(len(x))])
    return _interval(averages, _cut(_signed_rank(len(x)), level), level, f"{len(x)} values")


def shift(values: Sequence[float], others: Sequence[float], level: float = 0.95) -> Interval:
    """How much larger ``values`` are than the independent ``others``, in their unit.

    Raises ``ValueError`` when there are too few for an interval of this level (fewer than four each at 95 %).
    """
    x, y = np.asarray(values, np.float64), np.asarray(others, np.float64)
    differences = np.sort((x[:, None] - y[None, :]).ravel())
    return _interval(differences, _cut(_mann_whitney(len(x), len(y)), level), level, f"{len(x)} and {len(y)} values")


def _interval(ordered: np.ndarray, cut: int, level: float, what: str) -> Interval:
    if cut < 1:
        raise ValueError(f"{what} are too few for an interval of {level:.0%}; measure more often.")
    return Interval(float(np.median(ordered)), float(ordered[cut - 1]), float(ordered[-cut]), level)


def _cut(probabilities: np.ndarray, level: float) -> int:
    """The largest c with twice the probability of c - 1 or less within 1 - level."""
    return int(np.searchsorted(np.cumsum(probabilities), (1 - level) / 2 + 1e-12, side="right"))


@lru_cache
def _signed_rank(count: int) -> np.ndarray:
    """Probability of each sum 0, 1, ... of the ranks with a plus."""
    ways = np.ones(1)
    for rank in range(1, count + 1):
        ways = (np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))) / 2
    return ways


@lru_cache
def _mann_whitney(first: int, second: int) -> np.ndarray:
    """Probability of each number 0, 1, ... of pairs in which the first sample has the larger value.

    The numbers of ways are the coefficients of the Gaussian binomial; whole numbers of Python keep them exact.
    """
    ways = [1]
    for factor in range(1, second + 1):
        # Times (1 - q^(first + factor)), then divided by (1 - q^factor).
        product = ways + [0] * (first + factor)
        for power, value in enumerate(ways):
            product[power + first + factor] -= value
        for power in range(factor, len(product)):
            product[power] += product[power - factor]
        ways = product[: first * factor + 1]
    total = sum(ways)
    return np.array([way / total for way in ways])
