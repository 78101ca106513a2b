r"""Robust statistics of latencies.

**One file.** Median, median absolute deviation (times 1.4826, so that it estimates the standard deviation of normal
noise), 5th and 95th percentile.

**Two files.** They are measured in rounds, side by side within each round, so that what disturbs a round (clock, heat,
neighbours) disturbs both. With :math:`a_i` and :math:`b_i` the medians of the reference and of the other file in round
:math:`i`, the estimate is

.. math:: s = \exp \operatorname{median}_i \log (a_i / b_i),

how many times faster the other file is: above 1 it is faster. In logarithms the estimate is exactly reciprocal when the
two files change places. Its interval is the percentile bootstrap over whole rounds: rounds are drawn with replacement,
the estimate repeated, and the quantiles taken. Inferences within a round are not independent, rounds nearly are; this
is why rounds are resampled and inferences are not. The interval speaks of the processes that were measured:
what changes from one start of a process to the next (the layout of its memory) is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Scale from the median absolute deviation to the standard deviation of a normal distribution.
_NORMAL = 1.4826


@dataclass(frozen=True)
class Summary:
    """Location and spread of samples, in their unit."""

    count: int
    median: float
    mad: float
    p5: float
    p95: float
    minimum: float


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that covers the true value with probability ``level``."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside."""
        return not self.low <= value <= self.high


def summary(samples: Sequence[float] | np.ndarray) -> Summary:
    """Summarises at least one sample."""
    x = np.asarray(samples, np.float64)
    if x.size == 0:
        raise ValueError("no sample to summarise; measure at least one inference.")
    median = float(np.median(x))
    mad = _NORMAL * float(np.median(np.abs(x - median)))
    p5, p95 = (float(p) for p in np.percentile(x, [5, 95]))
    return Summary(x.size, median, mad, p5, p95, float(x.min()))


def speedup(
    reference: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """How many times faster ``other`` is than ``reference``; both are samples by round, paired by index.

    Raises ``ValueError`` when the rounds do not pair up or hold no positive sample.
    """
    if len(reference) != len(other) or not reference:
        raise ValueError(f"{len(reference)} and {len(other)} rounds do not pair up; measure both in every round.")
    a = np.array([np.median(r) if len(r) else np.nan for r in reference])
    b = np.array([np.median(r) if len(r) else np.nan for r in other])
    if not (np.all(a > 0) and np.all(b > 0)):
        raise ValueError("a round holds no positive time; measure at least one inference in each.")
    logs = np.log(a) - np.log(b)
    draws = np.random.default_rng(seed).integers(len(logs), size=(resamples, len(logs)))
    medians = np.median(logs[draws], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high)), level)


def settled(earlier: Sequence[float], later: Sequence[float], tolerance: float = 0.02) -> bool:
    """Whether two consecutive stretches of samples have the same median.

    Their medians may differ by ``tolerance`` (relative), or by twice the standard error of the difference where the
    noise is larger than that.
    """
    first, second = summary(earlier), summary(later)
    # The standard error of a median of normal noise is 1.2533 times that of the mean.
    variance = first.mad**2 / first.count + second.mad**2 / second.count
    allowed = max(tolerance * second.median, 2 * 1.2533 * float(np.sqrt(variance)))
    return abs(first.median - second.median) <= allowed
