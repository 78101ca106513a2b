"""A finished session: the trained network, and the facts that its report has of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from edgekron.compression.compressor import Compression

from .examples import Examples
from .reconstruct import Block
from .request import TrainingRequest
from .results import TrainingOutcome


@dataclass(frozen=True)
class Learnt:
    """EDP's decisions: the ``ratios`` asked for, and how many ranks and channels the penalty had not taken in time.

    ``by_budget`` of these were taken at once to meet the ratios, and ``by_width`` to come to numbers that run well.
    ``moved`` is how much the outputs differ without the channels that were zero, relative to the largest output.
    """

    ratios: Mapping[str, float]
    by_budget: int
    by_width: int
    moved: float

    def facts(self) -> dict[str, object]:
        """The decisions as reports have them."""
        taken = {"by_budget": self.by_budget, "by_width": self.by_width}
        return {"edp": dict(self.ratios), "taken_at_once": taken, "moved_by_removal": self.moved}


@dataclass(frozen=True)
class Finetuned:
    """The result of a session.

    ``compression`` has the trained hub; its plan and report are those of the network before, or EDP's own. ``blocks``
    are those that were reconstructed, None where nothing was to be done without labels. ``outcomes`` has one entry for
    each round of training, and ``learnt`` EDP's decisions.
    """

    compression: Compression
    blocks: tuple[Block, ...] | None = None
    outcomes: tuple[TrainingOutcome, ...] = ()
    learnt: Learnt | None = None

    def facts(self, request: TrainingRequest, examples: Examples) -> dict[str, object]:
        """The entry of a report for this training, as plain data."""
        facts: dict[str, object] = {"data": examples.name, "images": len(examples), "teacher": request.teacher}
        if self.blocks is not None:
            facts |= {"corrected": request.correct, "reconstruction": [asdict(block) for block in self.blocks]}
        if not self.outcomes:
            return facts
        if request.rounds > 1:
            facts["rounds"] = [outcome.facts() for outcome in self.outcomes]
        facts |= self.outcomes[-1].facts()
        if self.learnt is not None:
            facts |= self.learnt.facts()
        facts |= {"batch": request.batch, "lr": request.learning_rate, "seed": request.seed}
        return facts | {"transfer": request.transfer if request.teacher else None}
