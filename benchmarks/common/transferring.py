"""What benchmarks that train have in common: knowledge transfer to a compressed network, distillation to another one,
and training with labels alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.models.train import Recipe, both
from edgekron.training import (
    Augmentation,
    Examples,
    GraphModule,
    KnowledgeTransfer,
    ResponseCache,
    Trainer,
    TrainingOutcome,
    TrainingSettings,
    begin_norms,
    joined,
)

from .networks import TRAIN

#: In how many versions each training image is seen, and how they are made.
VARIANTS, AUGMENTATION = 8, Augmentation(2, flip=True)


@dataclass(frozen=True)
class Transfer:
    """How long and how fast a network is trained: on how many training images of Fashion-MNIST, for how many epochs,
    up to which learning rate, and with gradients cut to which norm, 0 for none.
    """

    images: int
    epochs: int
    rate: float
    clip: float = 0.0


def transferred(
    student: Hub, teacher: Hub, how: Transfer, *, folder: Path, identity: Mapping[str, Any]
) -> tuple[Hub, TrainingOutcome]:
    """``student`` trained with labels and a teacher, 5 % of the images held out to choose the best epoch by.

    The state is kept in ``folder``, and the same call takes it up again.
    """
    settings = TrainingSettings(
        epochs=how.epochs, learning_rate=how.rate, clip=how.clip, variants=VARIANTS, augmentation=AUGMENTATION
    )
    return _student(student, teacher, how.images, settings, folder, identity)


def retrained(hub: Hub, how: Transfer, *, folder: Path, identity: Mapping[str, Any]) -> tuple[Hub, TrainingOutcome]:
    """As ``transferred``, with labels alone."""
    settings = TrainingSettings(epochs=how.epochs, learning_rate=how.rate, clip=how.clip, augmentation=AUGMENTATION)
    return _student(hub, None, how.images, settings, folder, identity)


def distilled(
    student: nn.Module,
    teacher: Hub,
    recipe: Recipe,
    *,
    images: int,
    epochs: int,
    folder: Path,
    identity: Mapping[str, Any],
) -> TrainingOutcome:
    """Trains ``student``, which may have any weights, as ``transferred`` does, with the teacher's outputs alone.

    The rate, its warm-up and the weight decay are the recipe's, for random weights need more than compressed ones. No
    layer is aligned: those of a thinner network have other shapes than the teacher's.
    """
    settings = TrainingSettings(
        epochs=epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_epochs=recipe.warmup_epochs,
        variants=VARIANTS,
        augmentation=AUGMENTATION,
    )
    return _trained(student, teacher, _examples(images), settings, hints=(), folder=folder, identity=identity)


def _student(
    hub: Hub, teacher: Hub | None, images: int, settings: TrainingSettings, folder: Path, identity: Mapping[str, Any]
) -> tuple[Hub, TrainingOutcome]:
    """A hub trained as a torch module, each of its layers with a normalisation meanwhile."""
    examples = _examples(images)
    module = GraphModule(hub, normalise=True)
    begin_norms(module, [_few(examples)])
    outcome = _trained(module, teacher, examples, settings, hints=None, folder=folder, identity=identity)
    return module.to_hub(), outcome


def _examples(images: int) -> Examples:
    train = datasets.load(TRAIN).subset(images)
    return both(train, train.subset(1))[0]


def _few(examples: Examples) -> np.ndarray:
    return examples.fetch(examples.rows[:512])


def _trained(
    module: nn.Module,
    teacher: Hub | None,
    examples: Examples,
    settings: TrainingSettings,
    *,
    hints: Sequence[str] | None,
    folder: Path,
    identity: Mapping[str, Any],
) -> TrainingOutcome:
    rest, held_out = examples.split(0.05, 0)
    with joined() as processes:
        objective = None
        if teacher is not None:
            objective = KnowledgeTransfer(
                module.to(processes.device),
                GraphModule(teacher),
                torch.from_numpy(_few(examples)),
                hints=hints,
                cache=ResponseCache(len(examples.labels), VARIANTS),
            )
        return Trainer(
            module,
            rest,
            held_out,
            settings,
            processes=processes,
            objective=objective,
            folder=folder,
            identity=identity,
        ).run()
