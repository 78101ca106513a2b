"""Tiny networks and images that several tests share."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from edgekron.compression import artifact
from edgekron.compression.compressor import compress
from edgekron.graph import Hub, load
from edgekron.training import Examples, from_arrays

SHAPE = (1, 8, 8)
CLASSES = 3


class Tiny(nn.Module):
    """Three convolutions with normalisations, a residual sum, a pool and a classifier."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.classifier = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.norm2(self.block(x)))
        return self.classifier(torch.relu(self.down(x)).mean((2, 3)))


def tiny(classes: int = CLASSES, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Tiny(classes)
        for norm in (model.norm, model.norm2):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


@cache
def _hub(classes: int) -> Hub:
    return load(tiny(classes), input_shape=SHAPE)


def hub(classes: int = CLASSES) -> Hub:
    """``tiny`` as a hub, a copy of its own; it is exported once."""
    return _hub(classes).copy()


@cache
def _compressed(method: str, ratio: float) -> Hub:
    return compress(hub(), model="tiny", ratios={"macs": ratio}, method=method).hub


def compressed(method: str = "kronecker", ratio: float = 1.5) -> Hub:
    """``hub`` with fewer MACs, a copy of its own; it is compressed once."""
    return _compressed(method, ratio).copy()


def onnx_output(model: Hub, x: np.ndarray) -> np.ndarray:
    """The first output of ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {model.input_name: x})[0])


def images(count: int = 48, seed: int = 0) -> Examples:
    """Stripes in three directions and noise: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    pictures = rng.normal(0, 0.5, (count, *SHAPE)).astype(np.float32)
    wave = np.tile([1.0, -1.0], 4).astype(np.float32)
    for picture, label in zip(pictures, labels, strict=True):
        picture[0] += (wave[None, :], wave[:, None], np.outer(wave, wave))[label]
    return from_arrays("stripes", pictures, labels)


def factors(folder: Path) -> dict[str, np.ndarray]:
    """The factors and biases of a compressed folder, by layer."""
    found = {}
    for layer in artifact.read_hub(folder).layers():
        if layer.factorized is not None:
            tensors = [*layer.factorized.tensors, *([] if layer.factorized.bias is None else [layer.factorized.bias])]
            found |= {f"{layer.name}.{i}": tensor for i, tensor in enumerate(tensors)}
    return found


#: Height and width that no layer of ``chain`` divides evenly.
CHAIN_SHAPE = (3, 12, 10)


@cache
def _chain() -> Hub:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    return load(network.eval(), input_shape=CHAIN_SHAPE)


def chain() -> Hub:
    """Three convolutions and a classifier in a row, without a normalisation: a copy of its own."""
    return _chain().copy()


def smooth(count: int) -> np.ndarray:
    """``count`` images for ``chain``, whose neighbouring pixels are alike."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, *CHAIN_SHAPE))
    level = 3 * rng.standard_normal((count, CHAIN_SHAPE[0], 1, 1))
    return (noise + np.roll(noise, 1, 2) + np.roll(noise, 1, 3) + level).astype(np.float32)
