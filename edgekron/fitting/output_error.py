"""The error of a changed network at its outputs, on the calibration images of a walk.

An output that is computed as one value counts as a whole: the squared error over the squared deviation from the mean of
the images, both summed over all values.

An output that is joined from several values (``edgekron.graph.parts``), as a detector's boxes in pixels and scores from
0 to 1, would be all pixels to such a sum. Each of its parts p counts like an output instead:

    measurements    error_p = mean over channels c of  E_c / V_c
    probabilities   error_p = sum of E_c / sum of V_c

E_c is the squared error of the channel's values, V_c their squared deviation from the mean of the images. Channels of
measurements may differ in unit, so each counts by its own deviation. Probabilities have one unit: a class that hardly
shows up on the images has a deviation near zero and nothing to lose, so all classes share one sum, in which the values
that tell something weigh most. (The divergence of Kullback and Leibler was left aside: it has no largest value where
a probability goes to zero, and no common scale with measurements.) Of one image alone, the deviation is that from the
mean of the channel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from edgekron.graph.parts import JoinedOutput, joined_outputs

from .calibration import Walk

if TYPE_CHECKING:
    from edgekron.graph import Hub
    from edgekron.processes import Processes

#: The least squared deviation of a channel of measurements: this share of its squared values, and of the deviation of
#: its part. A channel is constant below.
_OF_VALUES, _OF_PART = 1e-4, 1e-6
_LEAST = 1e-30


class OutputError:
    """Compares networks with ``hub`` on the first ``images`` images of ``walk``, over all its processes."""

    def __init__(self, hub: Hub, walk: Walk, images: int) -> None:
        self.processes = walk.processes
        self._walk, self._images = walk, images
        joined = joined_outputs(hub.model.graph)
        self._measures: list[_Measure] = []
        for name, value in zip(hub.output_names, walk.outputs(hub, images), strict=True):
            output = joined.get(name)
            known = output is not None and output.images(value) is not None
            self._measures.append(
                _Joined(output, value, self.processes) if output and known else _Whole(value, self.processes)
            )

    def __call__(self, trial: Hub) -> float:
        """The relative squared error, summed over outputs and over the parts of joined outputs.

        ``trial`` may differ from the original network only behind the walk's cut.
        """
        outputs = self._walk.outputs(trial, self._images)
        errors = [measure(value) for measure, value in zip(self._measures, outputs, strict=True)]
        return float(torch.cat(errors).sum())


class _Measure(Protocol):
    """The errors of one output, [1] or one for each part."""

    def __call__(self, value: np.ndarray) -> Tensor: ...


class _Whole:
    """The error of an output as a whole."""

    def __init__(self, reference: np.ndarray, processes: Processes) -> None:
        self._reference, self._processes = reference, processes
        self._variation = self._squares(reference).clamp_min(_LEAST)

    def __call__(self, value: np.ndarray) -> Tensor:
        error = float(np.square(value - self._reference).sum())
        return self._processes.sum(torch.tensor([error], dtype=torch.float64)) / self._variation

    def _squares(self, value: np.ndarray) -> Tensor:
        """Squared deviation from the mean over all images, summed."""
        count = self._processes.sum(torch.tensor(len(value), dtype=torch.float64))
        mean = self._processes.sum(torch.from_numpy(np.array(value.sum(0, dtype=np.float64)))) / count
        own = float(np.square(value - mean.float().numpy()).sum())
        return self._processes.sum(torch.tensor(own, dtype=torch.float64))


class _Joined:
    """The errors of an output's parts."""

    def __init__(self, output: JoinedOutput, reference: np.ndarray, processes: Processes) -> None:
        self._output, self._processes = output, processes
        self._reference = self._images(reference)
        # The number of the sum that each value of an image belongs to, over the channels of all parts; -1 for none.
        self._sums = np.full(math.prod(output.shape), -1)
        self._first = [0]
        for part in output.parts:
            self._sums[part.places] = self._first[-1] + part.channels
            self._first.append(self._first[-1] + int(part.channels.max()) + 1)
        self._variation = self._variations()

    def __call__(self, value: np.ndarray) -> Tensor:
        differences = zip(self._images(value), self._reference, strict=True)
        errors = self._summed(sum((_squared(a - b) for a, b in differences), np.zeros(self._sums.shape)))
        return torch.tensor([float(error) for error in self._by_part(errors)], dtype=torch.float64)

    def _by_part(self, errors: np.ndarray) -> list[float]:
        found = []
        for part, start, end in zip(self._output.parts, self._first, self._first[1:], strict=False):
            error, variation = errors[start:end], self._variation[start:end]
            found.append(error.sum() / variation.sum() if part.probability else (error / variation).mean())
        return found

    def _images(self, value: np.ndarray) -> np.ndarray:
        found = self._output.images(value)
        if found is None:
            raise AssertionError(f"the output {self._output.name} has another shape than that of its network")
        return found

    def _variations(self) -> np.ndarray:
        """The squared deviation of each channel, at least that of a channel that is not constant."""
        nothing = np.zeros(self._sums.shape)
        count = int(self._processes.sum(torch.tensor(len(self._reference), dtype=torch.float64)))
        total = sum(self._reference.astype(np.float64), nothing) if len(self._reference) else nothing
        mean = self._processes.sum(torch.from_numpy(np.array(total))).numpy() / count
        if count == 1:
            mean = (self._over_channels(mean) / self._over_channels(np.ones(mean.shape)))[self._sums]
        deviation = self._summed(sum((_squared(image - mean) for image in self._reference), nothing))
        energy = self._summed(sum(map(_squared, self._reference), nothing))
        values = self._over_channels(np.ones(self._sums.shape))
        least = np.maximum(energy * _OF_VALUES, _LEAST)
        for start, end in zip(self._first, self._first[1:], strict=False):
            share = values[start:end] / values[start:end].sum()
            least[start:end] = np.maximum(least[start:end], _OF_PART * deviation[start:end].sum() * share)
        return np.asarray(np.maximum(deviation, least))

    def _over_channels(self, values: np.ndarray) -> np.ndarray:
        """The sum of an image's values over each channel."""
        inside = self._sums >= 0
        return np.asarray(np.bincount(self._sums[inside], values[inside], self._first[-1]))

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """The same, over all processes."""
        return self._processes.sum(torch.from_numpy(self._over_channels(values))).numpy()


def _squared(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.square(values, dtype=np.float64))
