"""What training reports: scores on held-out images, where a run is, and what it came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """How good a network is on held-out images: top-1 in percent (None without labels) and the objective."""

    top1: float | None
    loss: float

    def better_than(self, other: Scores | None) -> bool:
        """By top-1 where it is known, else by the objective."""
        if other is None:
            return True
        if self.top1 is None or other.top1 is None:
            return self.loss < other.loss
        return (self.top1, -self.loss) > (other.top1, -other.loss)


@dataclass(frozen=True)
class TrainingPosition:
    """Where a run is: steps of how many in all, the running loss, and the scores of the last epoch's average."""

    epoch: int
    step: int
    steps: int
    loss: float
    scores: Scores | None = None


@dataclass(frozen=True)
class TrainingOutcome:
    """What a run came to: the best average's scores and epoch, those before training, seconds, why it ended, and the
    devices that its steps were done on.
    """

    before: Scores
    best: Scores
    best_epoch: int
    epochs: int
    seconds: float
    stopped_early: bool
    devices: tuple[str, ...] = ()


def plain(scores: Scores) -> list[float | None]:
    """Scores as a state on disk has them."""
    return [scores.top1, scores.loss]


def scores_of(values: Sequence[float | None]) -> Scores:
    """Scores from a state on disk."""
    return Scores(values[0], values[1] or 0.0)
