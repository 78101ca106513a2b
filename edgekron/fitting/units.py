"""Powers of two by which the values of a layer are multiplied while its factors are fitted.

Squares of very small or very large float32 numbers are zero or infinite, and a fit that looks at squares alone would
see no error. With units u of the inputs and v of the outputs, the layer y = K x + b becomes

    (v y) = (K v / u) (u x) + (v b)

whose values are of the size of one. Multiplying by a power of two is exact, and for values of an ordinary size the
units are one, so that nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .calibration import Sample, Walk, sample
from .fit import Fit

if TYPE_CHECKING:
    from edgekron.graph import Layer

#: Root mean squares up to which, and from whose inverse on, values are of an ordinary size.
ORDINARY = 1e9


@dataclass(frozen=True)
class Units:
    """The units of a layer's inputs and outputs."""

    inputs: float = 1.0
    outputs: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether nothing is multiplied."""
        return self.inputs == self.outputs == 1.0

    def kernel(self, kernel: Tensor) -> Tensor:
        """The kernel in these units."""
        return kernel if self.plain else kernel * (self.outputs / self.inputs)

    def layer(self, layer: Layer) -> Layer:
        """The layer with its bias in these units."""
        if self.plain or layer.bias is None:
            return layer
        return replace(layer, bias=layer.bias * np.float32(self.outputs))

    def walk(self, walk: Walk) -> Walk:
        """A view of a walk that gives the layer's inputs in these units."""
        return walk if self.plain else _View(walk, self.inputs)

    def fit(self, fit: Fit) -> Fit:
        """A fit that was made in these units, for the plain layer; each factor takes its share of the unit."""
        if self.plain:
            return fit
        power, count = round(math.log2(self.inputs / self.outputs)), len(fit.tensors)
        shares = [power * (i + 1) // count - power * i // count for i in range(count)]
        return replace(fit, tensors=tuple(t * 2.0**share for t, share in zip(fit.tensors, shares, strict=True)))

    def bias(self, bias: Tensor) -> Tensor:
        """A bias in these units, for the plain layer."""
        return bias if self.plain else bias / self.outputs


class _View(Walk):
    """A walk through other units; it has no files of its own."""

    def __init__(self, walk: Walk, unit: float) -> None:
        self._walk, self._unit = walk, np.float32(unit)
        self.processes = walk.processes

    def values(self, name: str) -> Iterator[np.ndarray]:
        """The values of the walk in the unit."""
        return (value * self._unit for value in self._walk.values(name))

    def images(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """The images of the walk in the unit."""
        return ((number, value * self._unit) for number, value in self._walk.images(name))


def units_of_kernel(kernel: Tensor) -> Units:
    """The units for a fit to a kernel alone."""
    return Units(outputs=unit_for(float(kernel.double().square().mean())))


def sample_in_units(
    layer: Layer, kernel: Tensor, outputs: Walk, inputs: Walk, seed: int, units: Units | None = None
) -> tuple[Sample, Units]:
    """``sample`` in ``units``, or in those that suit the values, which are the same for all processes."""
    if units is None:
        taken = sample(layer, kernel, outputs, inputs, seed)
        sizes = [float(value.double().square().mean()) if value.numel() else 0.0 for value in (taken.x, taken.y)]
        units = Units(*map(unit_for, sizes))
        if units.plain:
            return taken, units
    ours = units.walk(outputs)
    theirs = ours if outputs is inputs else units.walk(inputs)
    return sample(units.layer(layer), units.kernel(kernel), ours, theirs, seed), units


def unit_for(square: float) -> float:
    """The power of two that makes values of this mean square of the size of one; one for values of ordinary size."""
    if square == 0.0 or not math.isfinite(square) or ORDINARY**-2 <= square <= ORDINARY**2:
        return 1.0
    return 2.0 ** -round(math.log2(square) / 2)
