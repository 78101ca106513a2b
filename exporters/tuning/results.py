"""The results of tuning one layer: the time of every candidate, and the candidates that are chosen by these times.

A candidate is chosen only if its gain over the dense layer is *real*: the interval of its ratio lies above 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekron.runtimes.statistics import Interval

from .candidates import FormCandidate

DENSE = ("dense",)


def ratio_to_json(ratio: Interval) -> dict[str, object]:
    """A ratio of times and its interval as plain data."""
    return {"ratio": ratio.value, "interval": [ratio.low, ratio.high]}


def ratio_from_json(data: Mapping[str, Any]) -> Interval:
    """The inverse of ``ratio_to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    low, high = data["interval"]
    return Interval(float(data["ratio"]), float(low), float(high))


@dataclass(frozen=True)
class Trial:
    """A candidate that was measured: its median in seconds, and how many times faster than the dense layer it is."""

    candidate: FormCandidate
    seconds: float
    ratio: Interval
    rounds: int

    @property
    def real(self) -> bool:
        """Whether the candidate is faster beyond doubt."""
        return self.ratio.low > 1.0

    def to_json(self) -> dict[str, object]:
        """Plain data: milliseconds, ratio and interval."""
        return {
            "order": list(self.candidate.order),
            "forms": list(self.candidate.forms),
            "ms": 1e3 * self.seconds,
            **ratio_to_json(self.ratio),
            "rounds": self.rounds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """The inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        candidate = FormCandidate(tuple(data["order"]), tuple(data["forms"]))
        return cls(candidate, float(data["ms"]) / 1e3, ratio_from_json(data), int(data["rounds"]))


@dataclass(frozen=True)
class Result:
    """All trials of one layer on one runtime; the trials with the most rounds were in the final."""

    dense_seconds: float
    trials: tuple[Trial, ...]

    @property
    def finalists(self) -> tuple[Trial, ...]:
        """The trials that may be chosen: measured to the end, fastest first."""
        most = max((trial.rounds for trial in self.trials), default=0)
        last = [trial for trial in self.trials if trial.rounds == most]
        return tuple(sorted(last, key=lambda trial: -trial.ratio.value))

    def best(self, order: tuple[int, ...]) -> Trial | None:
        """The fastest trial of ``order`` whose gain is real; None if the layer should stay dense."""
        return next((t for t in self.finalists if t.real and t.candidate.order == order), None)

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {"dense_ms": 1e3 * self.dense_seconds, "trials": [trial.to_json() for trial in self.trials]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        return cls(float(data["dense_ms"]) / 1e3, tuple(Trial.from_json(one) for one in data["trials"]))


@dataclass(frozen=True)
class Choice:
    """The choice for one layer: one order for all runtimes, and by target the trial chosen, None for dense."""

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

    A layer has one order. With several targets it is the order with the largest product of ratios, where a target that
    gains nothing in an order counts as 1. ``order``, the present one, is kept where nothing gains.
    """
    orders = {trial.candidate.order for result in results.values() for trial in result.finalists if trial.real}

    def gain(one: tuple[int, ...]) -> float:
        found = [result.best(one) for result in results.values()]
        return math.prod(trial.ratio.value for trial in found if trial is not None)

    chosen = max(sorted(orders), key=gain, default=order)
    return Choice(chosen, {target: result.best(chosen) for target, result in results.items()})
