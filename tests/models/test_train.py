"""A recipe to a checkpoint: through the one training loop, without the network being chosen by its test images."""

from __future__ import annotations

import json

import numpy as np
import safetensors.torch

from edgekron.models import catalog, datasets, train
from edgekron.models.datasets import ImageSet

RECIPE = """
network = "sixconv"
data = "tiny"
epochs = 2
batch_size = 8
learning_rate = 0.01
weight_decay = 1e-4
warmup_epochs = 0.5
label_smoothing = 0.05
crop_padding = 1
erase = 2
ema = 0.9
seed = 0
"""


def test_a_recipe_makes_a_checkpoint(tmp_path, monkeypatch):
    def load(name: str) -> ImageSet:
        rng = np.random.default_rng(len(name))
        count = 24 if name.endswith("train") else 10
        images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
        return ImageSet(name, images, rng.integers(0, 10, count), (0.3,), (0.3,))

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(train, "RECIPES", tmp_path)
    (tmp_path / "mine.toml").write_text(RECIPE)
    checkpoints = tmp_path / "folder" / "checkpoints"
    facts = train.train("mine", tmp_path / "runs", checkpoints)
    assert facts == catalog.facts("mine", checkpoints) == json.loads((checkpoints / "mine.json").read_text())
    assert facts["recipe"]["erase"] == 2
    weights = safetensors.torch.load_file(checkpoints / "mine.safetensors")
    model = catalog.build("sixconv")
    model.load_state_dict(weights)
    assert not (tmp_path / "runs" / "mine").exists()
    train_set, test_set = train.both(load("tiny:train"), load("tiny:test"))
    assert (len(train_set), len(test_set)) == (24, 10)
    rows = np.array([23, 24, 0])
    assert np.array_equal(train_set.fetch(rows)[1:2], test_set.fetch(rows[1:2]))
