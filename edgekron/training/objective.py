"""The objective of training: a loss that each step makes smaller."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Objective(Protocol):
    """A loss of what the network gave for a batch.

    ``images`` are those that the network saw, ``rows`` their row numbers, and ``variant`` the number of the draws that
    augmented them (-1 for images as they are). ``output`` is the network's, ``labels`` are -1 where unknown.
    """

    def __call__(self, images: Tensor, output: Tensor, labels: Tensor, rows: Tensor, variant: int, /) -> Tensor: ...


def cross_entropy(smoothing: float = 0.0) -> Objective:
    """Cross-entropy with the labels."""

    def loss(_images: Tensor, output: Tensor, labels: Tensor, _rows: Tensor, _variant: int) -> Tensor:
        return F.cross_entropy(output.float(), labels, label_smoothing=smoothing)

    return loss
