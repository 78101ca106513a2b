"""The error of a changed network at its outputs, on the calibration images of a walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .calibration import Walk
from .units import unit_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.graph import Hub


class OutputError:
    """Compares networks with ``hub`` on the first ``images`` images of ``walk``, over all its processes."""

    def __init__(self, hub: Hub, walk: Walk, images: int) -> None:
        self.processes = walk.processes
        self._walk, self._images = walk, images
        self._reference = walk.outputs(hub, images)
        self._units = [self._unit(value) for value in self._reference]
        self._variation = torch.stack(
            [self._squares(value).clamp_min(1e-30) for value in self._in_units(self._reference)]
        )

    def __call__(self, trial: Hub) -> float:
        """The squared error over the squared deviation from the mean, summed over outputs.

        ``trial`` may differ from the original network only behind the walk's cut.
        """
        outputs = self._in_units(self._walk.outputs(trial, self._images))
        reference = self._in_units(self._reference)
        errors = [float(np.square(a - b).sum()) for a, b in zip(outputs, reference, strict=True)]
        total = self.processes.sum(torch.tensor(errors, dtype=torch.float64))
        return float((total / self._variation).sum())

    def _in_units(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [v if unit == 1.0 else v * np.float32(unit) for v, unit in zip(values, self._units, strict=True)]

    def _unit(self, value: np.ndarray) -> float:
        """The power of two in which the squares of an output are neither zero nor infinite; mostly one."""
        own = [float(np.square(value, dtype=np.float64).sum()), float(value.size)]
        squares, count = self.processes.sum(torch.tensor(own, dtype=torch.float64)).tolist()
        return unit_for(squares / max(count, 1.0))

    def _squares(self, value: np.ndarray) -> Tensor:
        """Squared deviation from the mean over all images, summed."""
        count = self.processes.sum(torch.tensor(len(value), dtype=torch.float64))
        mean = self.processes.sum(torch.from_numpy(np.array(value.sum(0, dtype=np.float64)))) / count
        own = float(np.square(value - mean.float().numpy()).sum())
        return self.processes.sum(torch.tensor(own, dtype=torch.float64))
