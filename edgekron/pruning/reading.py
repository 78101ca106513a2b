"""Inputs and outputs of a layer for calibration images, sampled in patches when a walk stands at the layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgekron.fitting.calibration import Walk, apply_kernel, patches_of, patches_of_each

if TYPE_CHECKING:
    from edgekron.graph import Layer

#: Patches of each image that the spread of a layer's outputs is taken from.
_SPREAD_PATCHES = 64


def images_of(walk: Walk, name: str) -> Iterator[np.ndarray]:
    """A value of the walk, one image at a time."""
    return (image for _, image in walk.images(name))


def patches_per_image(layer: Layer, walk: Walk) -> int:
    """How many patches of each image it takes to know a layer's second moments."""
    return patches_of_each(layer, max(1, sum(len(piece) for piece in walk.values(layer.input))))


def outputs_of(layer: Layer, patches: Tensor) -> Tensor:
    """The outputs [m, F] of a layer for patches [m, groups, d]."""
    bias = torch.zeros(layer.kernel_shape[0]) if layer.bias is None else torch.from_numpy(layer.bias)
    return apply_kernel(patches, torch.from_numpy(np.array(layer.kernel))) + bias


def spread_of_outputs(layer: Layer, walk: Walk, seed: int) -> np.ndarray | None:
    """Standard deviation [F] of the outputs of the layer at which ``walk`` stands; None without a constant kernel."""
    if not layer.has_kernel:
        return None
    total, count = torch.zeros(2, layer.kernel_shape[0], dtype=torch.float64), 0
    for index, image in enumerate(images_of(walk, layer.input)):
        rng = np.random.default_rng((seed, index))
        y = outputs_of(layer, patches_of(layer, image, _SPREAD_PATCHES, rng)).double()
        total += torch.stack([y.sum(0), (y * y).sum(0)])
        count += len(y)
    mean, squares = total / max(count, 1)
    return np.asarray((squares - mean * mean).clamp_min(0).sqrt())
