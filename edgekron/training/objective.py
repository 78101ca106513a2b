"""What training makes small."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Objective(Protocol):
    """A loss. ``images`` are what the network saw, ``rows`` their numbers, ``variant`` the draws they were made with
    (-1 for images as they are), ``output`` what it answered, ``labels`` -1 where unknown.
    """

    def __call__(self, images: Tensor, output: Tensor, labels: Tensor, rows: Tensor, variant: int) -> Tensor: ...


def cross_entropy(smoothing: float = 0.0) -> Objective:
    """Cross-entropy with the labels."""

    def loss(images: Tensor, output: Tensor, labels: Tensor, rows: Tensor, variant: int) -> Tensor:  # noqa: ARG001
        return F.cross_entropy(output.float(), labels, label_smoothing=smoothing)

    return loss
