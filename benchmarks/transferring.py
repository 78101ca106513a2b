"""What benchmarks that train have in common: knowledge transfer to a compressed network, distillation to another one,
and top-1 of a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from publishing import CALIBRATION, TEST
from torch import nn

from edgekron.exporters.onnx import export_onnx
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.models.train import Recipe, both
from edgekron.runtimes import top1
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

#: In how many versions each training image is seen, and how they are made.
VARIANTS, AUGMENTATION = 8, Augmentation(2, flip=True)


def calibration_images(count: int) -> np.ndarray:
    """``count`` of the bundled calibration images, float32 [n, 1, 28, 28]."""
    data = datasets.load(CALIBRATION).subset(count)
    return data.normalise(data.images)


def transferred(
    student: Hub,
    teacher: Hub,
    *,
    images: int,
    epochs: int,
    rate: float,
    clip: float = 0.0,
    folder: Path,
    identity: Mapping[str, Any],
) -> tuple[Hub, TrainingOutcome]:
    """``student`` trained with labels and a teacher on ``images`` training images of Fashion-MNIST, 5 % of
    them held out to choose the best epoch by.

    ``rate`` is the highest learning rate, and ``clip`` the norm that gradients are cut to, 0 for none. The state is
    kept in ``folder``, and the same call takes it up again.
    """
    examples = _examples(images)
    module = GraphModule(student, normalise=True)
    begin_norms(module, [_few(examples)])
    settings = TrainingSettings(
        epochs=epochs, learning_rate=rate, clip=clip, variants=VARIANTS, augmentation=AUGMENTATION
    )
    outcome = _trained(module, teacher, examples, settings, hints=None, folder=folder, identity=identity)
    return module.to_hub(), outcome


def retrained(
    hub: Hub, *, images: int, epochs: int, rate: float, folder: Path, identity: Mapping[str, Any]
) -> tuple[Hub, TrainingOutcome]:
    """As ``transferred``, with labels alone."""
    examples = _examples(images)
    module = GraphModule(hub, normalise=True)
    begin_norms(module, [_few(examples)])
    settings = TrainingSettings(epochs=epochs, learning_rate=rate, clip=1.0, augmentation=AUGMENTATION)
    outcome = _trained(module, None, examples, settings, hints=None, folder=folder, identity=identity)
    return module.to_hub(), outcome


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


def _examples(images: int) -> Examples:
    train = datasets.load("fashion-mnist:train").subset(images)
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


def file_top1(hub: Hub, images: int) -> tuple[float, int]:
    """Top-1 in percent of the exported ONNX file on ``images`` test images in ONNX Runtime, and its size in bytes."""
    test = datasets.load(TEST).subset(images)
    with tempfile.TemporaryDirectory(prefix="edgekron-top1-") as folder:
        file = Path(folder) / "network.onnx"
        export_onnx(hub, file)
        return 100 * top1(file, test.batches(100), threads=1).top1, file.stat().st_size
