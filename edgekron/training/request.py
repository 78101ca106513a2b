"""A request for training: everything that a session must know besides the network, the images and the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .augmentation import Augmentation
from .settings import Precision, TrainingSettings

#: Versions of an image that a teacher looks at, unless the request says how many.
VARIANTS = 8


@dataclass(frozen=True)
class TrainingRequest:
    """How a network is to be trained.

    ``source`` is the folder or the network to train and ``teacher`` the teacher, both as messages and states name them.
    ``correct`` and ``reconstruct`` (steps for each block) are done before training, without labels; with 0 ``epochs``
    they are all. ``rounds`` compress the teacher again and again. ``ratios`` map "macs" and "parameters" to how many
    times fewer EDP is to leave, of channels and ranks that run well unless ``any_width``; without ratios there is no
    EDP. ``hints`` are layers to align with the teacher's, None for the default ones. ``augment`` has words of "crop",
    "flip" and "erase"; ``held_out`` is the share of the images that the network is judged by. ``normalise`` gives
    convolutions a normalisation for the time of training.
    """

    source: str
    epochs: int
    teacher: str | None = None
    transfer: str = "default"
    hints: tuple[str, ...] | None = None
    correct: bool = False
    reconstruct: int | None = None
    rounds: int = 1
    ratios: Mapping[str, float] = field(default_factory=dict)
    any_width: bool = False
    batch: int = 128
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    clip: float = 1.0
    seed: int = 0
    augment: tuple[str, ...] = ("crop", "flip")
    variants: int | None = None
    held_out: float = 0.05
    patience: int = 0
    precision: Precision = "auto"
    normalise: bool = True

    @property
    def unlabelled(self) -> bool:
        """Whether anything is to be done without labels before training."""
        return self.correct or bool(self.reconstruct)

    def settings(self, shape: tuple[int, ...]) -> TrainingSettings:
        """The settings of the training loop for images of ``shape`` [C, H, W]. Raises ``UserError``."""
        size = min(shape[1:], default=0)
        # What is best before ranks and channels have gone is no candidate, so EDP keeps the last weights.
        return TrainingSettings(
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            clip=self.clip,
            patience=self.patience,
            seed=self.seed,
            variants=self.variants if self.variants is not None else VARIANTS * (self.teacher is not None),
            keep_last=bool(self.ratios),
            precision=self.precision,
            augmentation=Augmentation(
                size // 12 * ("crop" in self.augment), "flip" in self.augment, size // 5 * ("erase" in self.augment)
            ),
        )
