"""The verdict on one limit, and on several.

A limit is **kept** only if the whole interval lies within the limit, and **broken** only if the whole interval lies
beyond. Anything else is **inconclusive**: the numbers, or the machine that they are from, do not allow an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edgekron.runtimes.statistics import Interval

from .limits import Limit
from .units import show


class Verdict(StrEnum):
    """The verdict on a limit, a model or a whole budget."""

    PASS = "pass"  # noqa: S105 - a verdict, not a word to get in
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> int:
        """Of a command that ends with this verdict; 2 is bad usage."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}[self]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """One failure fails; else one unanswered limit leaves the whole unanswered."""
    found = set(verdicts)
    return next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in found), Verdict.PASS)


@dataclass(frozen=True)
class Judgement:
    """A limit, the measured interval (None if there is none), and the verdict, with a reason if it needs one."""

    limit: Limit
    measured: Interval | None
    verdict: Verdict
    reason: str = ""
    #: Whether measuring again may help.
    again: bool = False

    def shown(self) -> str:
        """The measured number in words, with its interval unless that has no width."""
        if self.measured is None:
            return "-"
        quantity = self.limit.kind.quantity
        value, low, high = (show(x, quantity) for x in (self.measured.value, self.measured.low, self.measured.high))
        return value if low == high else f"{value} [{low}, {high}]"

    def to_json(self) -> dict[str, object]:
        """Plain data; numbers in seconds, bytes or 1."""
        measured = self.measured
        return {
            "limit": self.limit.key,
            "bound": self.limit.bound,
            "direction": "at least" if self.limit.kind.least else "at most",
            "quantity": self.limit.kind.quantity,
            "value": None if measured is None else measured.value,
            "interval": None if measured is None else [measured.low, measured.high],
            "verdict": str(self.verdict),
            "reason": self.reason,
        }


def exact(value: float) -> Interval:
    """A number without any doubt."""
    return Interval(value, value, value, 1.0)


def judge(limit: Limit, measured: Interval, busy: str = "") -> Judgement:
    """The verdict on a limit; ``busy`` says why the numbers may be too large, which leaves a kept limit kept."""
    low, high, bound = measured.low, measured.high, limit.bound
    kept = low >= bound if limit.kind.least else high <= bound
    broken = high < bound if limit.kind.least else low > bound
    if kept:
        return Judgement(limit, measured, Verdict.PASS)
    if broken and busy:
        return Judgement(limit, measured, Verdict.INCONCLUSIVE, f"too slow, but {busy}", again=True)
    if broken:
        return Judgement(limit, measured, Verdict.FAIL)
    reason = "too noisy for the limit: it lies inside the interval"
    return Judgement(limit, measured, Verdict.INCONCLUSIVE, reason, again=True)
