"""Patches of a layer in the original network and in the pruned one, for the repair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgekron.fitting.calibration import Sample, Walk, patches_of
from edgekron.fitting.sampled import WIDE, sums_of

from .channels import constant
from .groups import ChannelStructure
from .reading import images_of, outputs_of, patches_per_image

if TYPE_CHECKING:
    from edgekron.graph import Layer

#: Every such image is held out, unless there are fewer of them.
_HELD_OUT = 8
_MOST_HELD_OUT = 4096


@dataclass(frozen=True)
class Kept:
    """The inputs and outputs that are left of a layer, and the places [n, m] of each channel among all its inputs.

    m is above one in a layer that reads several pixels of a channel as inputs of their own.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    places: np.ndarray


def kept_of(structure: ChannelStructure, layer: Layer, removed: set[int]) -> Kept:
    """The rest of a layer of the original network without the units of the roots ``removed``."""
    inputs, outputs = structure.channels.layers[layer.name]
    f, c, _, _ = layer.kernel_shape
    places = np.arange(c)[:, None]
    if inputs is not None:
        roots = structure.channels.roots(inputs)
        counts = np.unique(roots, return_counts=True)[1]
        if len(set(counts.tolist())) == 1:
            places = roots.argsort(kind="stable").reshape(len(counts), -1)
    return Kept(
        np.flatnonzero(structure.alive(inputs, removed)) if inputs is not None else np.arange(c),
        np.flatnonzero(structure.alive(outputs, removed)) if outputs is not None else np.arange(f),
        places,
    )


@dataclass(frozen=True)
class Standing:
    """Both networks, each with a walk that stands at the same layer, and the units (roots) that one of them lacks."""

    structure: ChannelStructure
    reference: Walk
    other: Walk
    removed: set[int]

    def shortcut(self, old: Layer, new: Layer) -> tuple[str, str, np.ndarray] | None:
        """The value that the layer's output is added to: its name in both networks, and the channels that are left.

        None if the output is used otherwise, or the value is computed later than the layer.
        """
        outputs = [layer.node.outputs[0] for layer in (old, new)]
        names = []
        for value, walk in zip(outputs, (self.reference, self.other), strict=True):
            uses = list(value.uses())
            if len(uses) != 1 or value.is_graph_output() or uses[0][0].op_type != "Add":
                return None
            added = [v for v in uses[0][0].inputs if v is not None and v is not value]
            if len(added) != 1 or constant(added[0]) is not None or added[0].shape != value.shape:
                return None
            name = str(added[0].name)
            if not walk.holds(name):
                return None
            names.append((name, added[0]))
        units = self.structure.channels.of(names[0][1])
        if units is None:
            return None
        return names[0][0], names[1][0], np.flatnonzero(self.structure.alive(units, self.removed))


class MapMoments:
    """Centred second moments of channels, in float64, to tell copies from maps that are nearly alike."""

    def __init__(self, channels: int) -> None:
        self._products = torch.zeros(channels, channels, dtype=torch.float64)
        self._sum, self._count = torch.zeros(channels, dtype=torch.float64), 0

    def add(self, pixels: Tensor) -> None:
        """Pixels [m, channels]."""
        exact = pixels.double()
        self._products += exact.mT @ exact
        self._sum += exact.sum(0)
        self._count += len(pixels)

    def centred(self) -> Tensor:
        """The moments [channels, channels]."""
        mean = self._sum / self._count
        return self._products / self._count - mean[:, None] * mean


def take_sample(old: Layer, new: Layer, kept: Kept, standing: Standing, seed: int) -> tuple[Sample, Tensor | None]:
    """Moments and held-out patches of the pruned layer's inputs with its wanted outputs, and moments of its channels.

    The latter are the centred moments [n, n] of all channels that the original layer reads; None if none is removed, or
    if the channels are too many.
    """
    f, c, _, _ = new.kernel_shape
    total = sums_of(new.groups, int(np.prod(new.kernel_shape[1:])), f)
    absorbing = old.groups == 1 and c < old.kernel_shape[1]
    maps = MapMoments(len(kept.places)) if absorbing and len(kept.places) <= WIDE else None
    count = patches_per_image(new, standing.other)
    added = standing.shortcut(old, new)
    images = sum(len(piece) for piece in standing.reference.values(old.input))
    streams = [images_of(standing.reference, old.input), images_of(standing.other, new.input)]
    if added is not None:
        streams += [images_of(standing.reference, added[0]), images_of(standing.other, added[1])]
    held: list[tuple[Tensor, Tensor]] = []
    for index, values in enumerate(zip(*streams, strict=True)):

        def rng(index: int = index) -> np.random.Generator:
            # The same state for all values of an image: the same positions.
            return np.random.default_rng((seed, index))

        x = patches_of(old, values[0], count, rng())
        y = outputs_of(old, x)[:, kept.outputs]
        inputs = patches_of(new, values[1], count, rng())
        if added is not None:
            drift = values[2][:, added[2]] - values[3]
            y = y + _pixels(drift, count, rng())
        if maps is not None:
            seen = x.reshape(len(x), old.kernel_shape[1], -1)
            pixels = seen[:, kept.places, seen.shape[2] // 2].transpose(1, 2)
            maps.add(pixels.reshape(-1, len(kept.places)))
        if index % _HELD_OUT == _HELD_OUT - 1 or images < _HELD_OUT:
            most = -(-_MOST_HELD_OUT // max(1, images // _HELD_OUT))
            step = -(-len(inputs) // most)
            held.append((inputs[::step].clone(), y[::step].clone()))
        if index % _HELD_OUT != _HELD_OUT - 1 or images < _HELD_OUT:
            total.add(inputs, y, index)
    xs, ys = (torch.cat([pair[i] for pair in held]) for i in (0, 1))
    return Sample(total.finish(), xs, ys), maps.centred() if maps is not None else None


def _pixels(value: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    """The channels [m, C] of one image at ``count`` positions; all of a value [1, C]."""
    if value.ndim == 2:
        return torch.from_numpy(value)
    positions = value.shape[2] * value.shape[3]
    picks = np.arange(positions) if count >= positions else rng.integers(0, positions, (1, count))[0]
    return torch.from_numpy(np.ascontiguousarray(value.reshape(value.shape[1], -1)[:, picks].T))
