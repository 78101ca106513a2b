"""Trains a bundled network by its recipe: ``python -m edgekron.models.train resnet20``.

The loop is the one of ``edgekron.training``: SGD with Nesterov momentum, a linear warm-up and a cosine to zero, label
smoothing, random crops, flips and erasing, and an exponential moving average of the weights, whose last value is saved.
The state of an unfinished run stays in ``runs/NAME``, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shutil
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch

from edgekron.training import Augmentation, Examples, Trainer, TrainingPosition, TrainingSettings, joined

from . import datasets
from .catalog import CHECKPOINTS, RECIPES, CheckpointFacts, build

if TYPE_CHECKING:
    from .datasets import ImageSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint was made; read from ``recipes/NAME.toml``."""

    network: str
    data: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    crop_padding: int
    erase: int
    ema: float
    seed: int
    restart_epochs: int = 0
    restart_rate: float = 0.0

    def settings(self) -> TrainingSettings:
        """The same for the training loop."""
        return TrainingSettings(
            epochs=self.epochs,
            batch=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_epochs=self.warmup_epochs,
            label_smoothing=self.label_smoothing,
            ema=self.ema,
            seed=self.seed,
            restart_epochs=self.restart_epochs,
            restart_rate=self.restart_rate,
            # The test images are only looked at, never chosen by.
            keep_last=True,
            augmentation=Augmentation(self.crop_padding, flip=True, erase=self.erase),
        )

    @classmethod
    def read(cls, name: str) -> Recipe:
        """The recipe of a bundled network."""
        return cls(**tomllib.loads((RECIPES / f"{name}.toml").read_text()))


def both(train_set: ImageSet, test_set: ImageSet) -> tuple[Examples, Examples]:
    """Training and test images as rows of one set."""
    count = len(train_set)

    def fetch(rows: np.ndarray) -> np.ndarray:
        in_test = rows >= count
        pictures = np.empty((len(rows), *train_set.images.shape[1:]), np.uint8)
        pictures[~in_test], pictures[in_test] = train_set.images[rows[~in_test]], test_set.images[rows[in_test] - count]
        return train_set.normalise(pictures)

    labels = np.concatenate([train_set.labels, test_set.labels])
    rows = np.arange(len(labels))
    return (
        Examples(train_set.name, fetch, labels, rows[:count]),
        Examples(test_set.name, fetch, labels, rows[count:]),
    )


def train(name: str, runs: Path, checkpoints: Path = CHECKPOINTS) -> CheckpointFacts:
    """Runs the recipe ``name`` to its end and writes the checkpoint to the folder; returns the facts beside it.

    The state of an unfinished run is below ``runs``.
    """
    recipe = Recipe.read(name)
    train_set, test_set = datasets.load(f"{recipe.data}:train"), datasets.load(f"{recipe.data}:test")
    examples, test = both(train_set, test_set)
    torch.manual_seed(recipe.seed)
    model = build(recipe.network)

    def report(now: TrainingPosition) -> None:
        if now.scores is not None:
            log.info("%s epoch %d loss %.4f top-1 %.2f %%", name, now.epoch, now.loss, now.scores.top1)

    folder = runs / name
    with joined() as processes:
        trainer = Trainer(
            model,
            examples,
            test,
            recipe.settings(),
            processes=processes,
            folder=folder,
            identity={"recipe": asdict(recipe)},
        )
        outcome = trainer.run(report=report)
        device = processes.device_name
    facts: CheckpointFacts = {
        "network": recipe.network,
        "data": recipe.data,
        "top1": round(outcome.best.top1 or 0.0, 2),
        "mean": list(train_set.mean),
        "std": list(train_set.std),
        "recipe": asdict(recipe),
        "seconds": round(outcome.seconds),
        "device": device,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    checkpoints.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    safetensors.torch.save_file(weights, checkpoints / f"{name}.safetensors")
    (checkpoints / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder)
    return facts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="+", help="recipes, such as resnet20")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the states of unfinished runs are")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS, help="folder to write to (default: bundled)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in arguments.names:
        log.info("%s", json.dumps(train(name, arguments.runs, arguments.checkpoints)))


if __name__ == "__main__":
    main()
