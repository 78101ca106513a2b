"""How a network is trained: one immutable value, which a state on disk is checked against."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from edgekron.errors import UserError

from .augmentation import Augmentation

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingSettings:
    """SGD with Nesterov momentum, a linear warm-up, a cosine to zero, and an average of the weights.

    ``batch`` is the number of images of a step over all processes. Gradients are cut to the norm ``clip``, 0 leaves
    them. After ``patience`` epochs without a better average training stops, 0 never stops training. With ``variants``,
    epoch e sees the images as epoch e modulo ``variants`` did, so that a teacher need not look twice; 0 always draws
    anew. After ``epochs``, ``restart_epochs`` more run through a second cosine from ``restart_rate``. Training leaves
    the average that was best on held-out images, or with ``keep_last`` the last one. Raises ``UserError`` for numbers
    that train nothing.
    """

    epochs: int = 10
    batch: int = 128
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.0
    ema: float = 0.997
    clip: float = 0.0
    patience: int = 0
    seed: int = 0
    variants: int = 0
    restart_epochs: int = 0
    restart_rate: float = 0.0
    keep_last: bool = False
    precision: Precision = "auto"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1:
            raise UserError(f"{self.epochs} epochs of batches of {self.batch} train nothing; give at least 1 of each.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"a learning rate of {self.learning_rate:g} trains nothing; give a number above 0.")
        if min(self.variants, self.patience, self.clip, self.weight_decay, self.warmup_epochs) < 0:
            raise UserError("variants, patience, clip, weight decay and warm-up must not be negative.")

    @property
    def last_epoch(self) -> int:
        """Epochs in all."""
        return self.epochs + self.restart_epochs

    def rate(self, epoch: float) -> float:
        """Learning rate after ``epoch`` epochs."""
        if epoch < self.epochs:
            warm = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
            return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.restart_rate * 0.5 * (1 + math.cos(math.pi * (epoch - self.epochs) / self.restart_epochs))

    def variant(self, epoch: int) -> int:
        """Number of the draws that ``epoch`` sees its images with."""
        return epoch % self.variants if self.variants else epoch

    def identity(self) -> dict[str, object]:
        """The settings that a state on disk must share: all but the learning rate, which a later run may lower."""
        facts = asdict(self)
        del facts["learning_rate"]
        return facts
