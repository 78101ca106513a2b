"""Numbers of a training run: scores on held-out images, where the run is, and what the run came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Scores:
    """How good a network is on held-out images: top-1 in percent (None without labels) and the objective."""

    top1: float | None
    loss: float

    def better_than(self, other: Scores | None) -> bool:
        """Whether these scores are the better ones: by top-1 where it is known, else by the objective."""
        if other is None:
            return True
        if self.top1 is None or other.top1 is None:
            return self.loss < other.loss
        return (self.top1, -self.loss) > (other.top1, -other.loss)

    @classmethod
    def read(cls, values: Sequence[float | None]) -> Scores:
        """Scores from [top-1, loss], as a state on disk has them."""
        return cls(values[0], values[1] or 0.0)


@dataclass(frozen=True)
class TrainingPosition:
    """Where a run is: steps of how many in all, the running loss, and the scores of the last epoch's average."""

    epoch: int
    step: int
    steps: int
    loss: float
    scores: Scores | None = None


#: Called with the position of a run after each step and after each epoch.
TrainingListener = Callable[[TrainingPosition], None]


@dataclass
class TrainingRecord:
    """A run so far, as its state on disk keeps it.

    ``before`` are the scores before training; ``best`` are the best average's, found in ``best_epoch``.
    ``averaged_from`` is the step at which the average of the weights began, and ``loss`` the sum of the losses of the
    epoch's steps. ``devices`` are those that steps were done on.
    """

    before: Scores
    best: Scores
    step: int = 0
    averaged_from: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    loss: float = 0.0
    devices: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """The record as plain data."""
        scores = {name: [each.top1, each.loss] for name, each in (("before", self.before), ("best", self.best))}
        return {**vars(self), **scores}

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> TrainingRecord:
        """The record of ``plain``; an older state may lack a field that has a default."""
        known = {each.name: facts[each.name] for each in fields(cls) if each.name in facts}
        return cls(**{**known, "before": Scores.read(facts["before"]), "best": Scores.read(facts["best"])})


@dataclass(frozen=True)
class TrainingOutcome:
    """What a run came to.

    The scores before training, the best average's scores and epoch, the number of epochs and of seconds, whether the
    run ended because it no longer got better, and the devices that its steps were done on.
    """

    before: Scores
    best: Scores
    best_epoch: int
    epochs: int
    seconds: float
    stopped_early: bool
    devices: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        """The outcome as reports have it."""
        return {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "stopped_early": self.stopped_early,
            "seconds": round(self.seconds, 1),
            "held_out_top1": {"before": self.before.top1, "after": self.best.top1},
            "held_out_loss": {"before": self.before.loss, "after": self.best.loss},
            "device": ", ".join(self.devices),
        }

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> TrainingOutcome:
        """The outcome of ``facts``, which name all devices in one word."""
        top1, loss = facts["held_out_top1"], facts["held_out_loss"]
        before, best = (Scores(top1[when], loss[when]) for when in ("before", "after"))
        return cls(
            before,
            best,
            facts["best_epoch"],
            facts["epochs"],
            facts["seconds"],
            facts["stopped_early"],
            (facts["device"],),
        )
