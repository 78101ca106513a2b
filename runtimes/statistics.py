r"""Robust statistics of latencies.

**One file.** Median, median absolute deviation (times 1.4826, so that it estimates the standard deviation of normal
noise), 5th, 95th and 99th percentile.

**Two files.** They are measured in rounds, side by side within each round, so that what disturbs a round (clock, heat,
neighbours) disturbs both. With :math:`a_i` and :math:`b_i` the lower quartiles of the reference and of the other file
in round :math:`i`, the estimate is

.. math:: s = \exp \operatorname{median}_i \log (a_i / b_i),

how many times faster the other file is: above 1 it is faster. Other programs can only make an inference longer: on a
busy machine they decide the upper half of a round's samples, and the lower quartile is still the file's own.
In logarithms the estimate is exactly reciprocal when the two files change places.

Its interval is the percentile bootstrap over whole rounds: rounds are drawn with replacement, the estimate repeated,
and the quantiles taken. Inferences within a round are not independent, rounds nearly are; this is why rounds are
resampled and inferences are not. The interval speaks of the processes that were measured: the changes from one start
of a process to the next (the layout of its memory) are not in the interval. ``edgekron check`` starts the processes
again and again, and takes its intervals over these starts (``edgekron.runtimes.ranks``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Scale from the median absolute deviation to the standard deviation of a normal distribution.
_NORMAL = 1.4826
#: The quantile by which a round's samples are compared.
_QUARTILE = 0.25


@dataclass(frozen=True)
class Summary:
    """Location and spread of samples, in their unit."""

    count: int
    median: float
    mad: float
    p5: float
    p95: float
    minimum: float
    p99: float


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that covers the true value with probability ``level``."""

    value: float
    low: float
    high: float
    level: float = 0.95


def summary(samples: Sequence[float] | np.ndarray) -> Summary:
    """Summarises at least one sample."""
    x = np.asarray(samples, np.float64)
    if x.size == 0:
        raise ValueError("no sample to summarise; measure at least one inference.")
    median = float(np.median(x))
    mad = _NORMAL * float(np.median(np.abs(x - median)))
    p5, p95, p99 = (float(p) for p in np.percentile(x, [5, 95, 99]))
    return Summary(x.size, median, mad, p5, p95, float(x.min()), p99)


def median_interval(
    rounds: Sequence[Sequence[float]], *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """The median of the rounds' medians, with its percentile bootstrap over whole rounds.

    It says how well this measurement knows its median, not how far another day's would lie. Raises ``ValueError`` for a
    round without a sample.
    """
    if not rounds or not all(len(samples) for samples in rounds):
        raise ValueError("no sample to summarise; measure at least one inference in each round.")
    x = np.array([np.median(samples) for samples in rounds])
    draws = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    low, high = np.quantile(np.median(x[draws], axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.median(x)), float(low), float(high), level)


def log_ratios(reference: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> np.ndarray:
    """The logarithm of reference over other in each round, by their lower quartiles; positive where other is faster.

    Raises ``ValueError`` when the rounds do not pair up or hold no positive sample.
    """
    if len(reference) != len(other) or not reference:
        raise ValueError(f"{len(reference)} and {len(other)} rounds do not pair up; measure both in every round.")
    a = np.array([np.quantile(r, _QUARTILE) if len(r) else np.nan for r in reference])
    b = np.array([np.quantile(r, _QUARTILE) if len(r) else np.nan for r in other])
    if not (np.all(a > 0) and np.all(b > 0)):
        raise ValueError("a round holds no positive time; measure at least one inference in each.")
    ratios: np.ndarray = np.log(a) - np.log(b)
    return ratios


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
    logs = log_ratios(reference, other)
    draws = np.random.default_rng(seed).integers(len(logs), size=(resamples, len(logs)))
    medians = np.median(logs[draws], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high)), level)
