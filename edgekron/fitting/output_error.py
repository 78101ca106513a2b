"""The error of a changed network at its outputs, on the calibration images of a walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .calibration import Walk

if TYPE_CHECKING:
    from edgekron.graph import Hub


class OutputError:
    """Compares networks with ``hub`` on the first ``images`` images of ``walk``, over all its processes."""

    def __init__(self, hub: Hub, walk: Walk, images: int) -> None:
        self.processes = walk.processes
        self._walk, self._images = walk, images
        self._reference = walk.outputs(hub, images)
        self._variation = torch.stack([self._squares(value).clamp_min(1e-30) for value in self._reference])

    def __call__(self, trial: Hub) -> float:
        """The squared error over the squared deviation from the mean, summed over outputs.

        ``trial`` may differ from the original network only behind the walk's cut.
        """
        outputs = self._walk.outputs(trial, self._images)
        errors = [float(np.square(a - b).sum()) for a, b in zip(outputs, self._reference, strict=True)]
        total = self.processes.sum(torch.tensor(errors, dtype=torch.float64))
        return float((total / self._variation).sum())

    def _squares(self, value: np.ndarray) -> Tensor:
        """Squared deviation from the mean over all images, summed."""
        count = self.processes.sum(torch.tensor(len(value), dtype=torch.float64))
        mean = self.processes.sum(torch.from_numpy(np.array(value.sum(0, dtype=np.float64)))) / count
        own = float(np.square(value - mean.float().numpy()).sum())
        return self.processes.sum(torch.tensor(own, dtype=torch.float64))
