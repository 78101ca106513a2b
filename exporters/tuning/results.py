"""What a tuning gives: times of every way that was tried, and what is chosen by them.

A way is chosen only if its gain over the dense layer is *real*: the interval of its ratio lies above 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekron.runtimes.statistics import Interval

from .candidates import Candidate

DENSE = ("dense",)


@dataclass(frozen=True)
class Trial:
    """One way that was tried: its median in seconds, and how many times faster than the dense layer it is."""

    candidate: Candidate
    seconds: float
    ratio: Interval
    rounds: int

    @property
    def real(self) -> bool:
        """Whether it is faster beyond doubt."""
        return self.ratio.low > 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain data: milliseconds, ratio and interval."""
        return {
            "order": list(self.candidate.order),
            "forms": list(self.candidate.forms),
            "ms": 1e3 * self.seconds,
            "ratio": self.ratio.value,
            "interval": [self.ratio.low, self.ratio.high],
            "rounds": self.rounds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """The inverse of ``to_json``."""
        candidate = Candidate(tuple(data["order"]), tuple(data["forms"]))
        low, high = data["interval"]
        interval = Interval(float(data["ratio"]), float(low), float(high))
        return cls(candidate, float(data["ms"]) / 1e3, interval, int(data["rounds"]))


@dataclass(frozen=True)
class Result:
    """All trials of one layer on one runtime; those with the most rounds were in the final."""

    dense_seconds: float
    trials: tuple[Trial, ...]

    @property
    def finalists(self) -> tuple[Trial, ...]:
        """The trials that may be chosen: measured to the end, fastest first."""
        most = max((trial.rounds for trial in self.trials), default=0)
        last = [trial for trial in self.trials if trial.rounds == most]
        return tuple(sorted(last, key=lambda trial: -trial.ratio.value))

    def best(self, order: tuple[int, ...] | None = None) -> Trial | None:
        """The fastest way whose gain is real, in this order if one is given; None where the layer should stay dense."""
        return next((t for t in self.finalists if t.real and order in (None, t.candidate.order)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"dense_ms": 1e3 * self.dense_seconds, "trials": [trial.to_json() for trial in self.trials]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        return cls(float(data["dense_ms"]) / 1e3, tuple(Trial.from_json(one) for one in data["trials"]))


@dataclass(frozen=True)
class Choice:
    """What one layer becomes: one order for all runtimes, and by target the trial chosen, None for dense."""

    order: tuple[int, ...]
    trials: Mapping[str, Trial | None]

    @property
    def dense(self) -> bool:
        """Whether no runtime gains."""
        return all(trial is None for trial in self.trials.values())

    @property
    def forms(self) -> dict[str, tuple[str, ...]]:
        """The forms by target."""
        return {target: trial.candidate.forms if trial else DENSE for target, trial in self.trials.items()}


def choose(results: Mapping[str, Result], order: tuple[int, ...]) -> Choice:
    """The fastest real gains of one layer by target.

    A layer has one order: with several targets the one with the largest product of ratios, where a target that gains
    nothing in it counts as 1. ``order``, the present one, is kept where nothing gains.
    """
    orders = {trial.candidate.order for result in results.values() for trial in result.finalists if trial.real}

    def gain(one: tuple[int, ...]) -> float:
        found = [result.best(one) for result in results.values()]
        return math.prod(trial.ratio.value for trial in found if trial is not None)

    chosen = max(sorted(orders), key=gain, default=order)
    return Choice(chosen, {target: result.best(chosen) for target, result in results.items()})
