"""The free scaling between factors, chosen so that integers lose little.

A rank axis r is summed over: two or more factors have the axis, and the kernel does not change when one factor is
multiplied along r by a vector and another factor is divided by that vector. Let t_k[r] be the scale of the activation
after stage k of the contraction, for every rank that is open after the stage. The factor of stage k then becomes

    G_k'[..., r, ...] = G_k[..., r, ...] * t_k[r] / t_{k-1}[r]        t = 1 where r is not open (yet, or any more)

and the scales that all factors get along r multiply to 1: the expanded kernel is the same, up to rounding.

An integer activation has one scale for all its channels, from the smallest to the largest value of any. Its rounding
error leaves the next stage as

    step_z^2 / 12 * sum_r |A_r|^2 / t[r]^2       step_z = (max_r t[r] z[r] - min_r t[r] z[r]) / 255

with A the next factor. A has one scale for each output channel, the same for all r, and its own rounding leaves

    step_A^2 / 12 * sum_r t[r]^2 mean(z[r]^2)    step_A = max_r |A_r| / t[r] / 127

The first error grows when channels differ in range, the second when the columns of A do. The product of both errors is
least for the geometric mean of the two scalings that would make the ranges, or the columns, equal:

    |t[r]| = sqrt(rms(A_r) / peak(z[r]))         peak = max |z[r]|

This mean is a compromise. If the factors are balanced already, the first error can be larger with the mean than with
|t| = 1, which is kept then.

The sign of t is free as well: it turns each channel's longer side to the same end, so that the activation as a whole
spans less. (The first factor's own rounding does not change: its output channels, r among them, have a scale each.)

Source of the geometric mean, for channels between two layers: Nagel, van Baalen, Blankevoort, Welling, *Data-free
quantization through weight equalization and bias correction* (arXiv 1906.04721), section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekron.graph import Factorized

#: Scales differ by no more than this from their geometric mean, so that values near zero stay near zero.
LARGEST = 2.0**10


@dataclass(frozen=True, eq=False)
class Ranges:
    """The smallest and the largest value of an activation between two stages, for each combination of the open ranks.

    ``low`` and ``high`` have one axis for each name in ``axes``.
    """

    axes: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray

    def joined(self, other: Ranges) -> Ranges:
        """The ranges that cover both."""
        return Ranges(self.axes, np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def along(self, axis: str, scales: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) [size of ``axis``] over all other axes, which are multiplied by their ``scales`` first."""
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        for place, other in enumerate(self.axes):
            if other != axis and other in scales:
                scale = scales[other].reshape(_along(place, low.ndim))
                low, high = np.minimum(low * scale, high * scale), np.maximum(low * scale, high * scale)
        others = tuple(i for i, other in enumerate(self.axes) if other != axis)
        return low.min(axis=others), high.max(axis=others)


def rebalance(factorized: Factorized, ranges: Sequence[Ranges] | None = None) -> Factorized:
    """The same layer with other factors, whose stages lose less in integers; see the module's docstring.

    ``ranges`` are the ranges after each stage but the last, in contraction order; if they are not given, the ranges
    that white noise of unit variance would have (``expected_ranges``).
    """
    network, order = factorized.network, factorized.order
    ranges = expected_ranges(factorized) if ranges is None else ranges
    tensors = [tensor.astype(np.float64) for tensor in factorized.tensors]
    scales: dict[str, np.ndarray] = {}
    for position, index in enumerate(order):
        for place, axis in enumerate(network.axes[index]):
            if axis[0] != "r":
                continue
            after = np.ones(network.sizes[axis])
            readers = [other for other in order[position + 1 :] if axis in network.axes[other]]
            if readers:
                reader = readers[0]
                columns = np.moveaxis(tensors[reader], network.axes[reader].index(axis), 0)
                rms = np.sqrt(np.square(columns).reshape(len(columns), -1).mean(axis=1))
                after = _scale(*ranges[position].along(axis, scales), rms)
            before = scales.get(axis, np.ones(network.sizes[axis]))
            tensors[index] *= (after / before).reshape(_along(place, tensors[index].ndim))
            scales[axis] = after
    return replace(factorized, tensors=tuple(tensor.astype(np.float32) for tensor in tensors))


def _scale(low: np.ndarray, high: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """The vector t of one rank from the range of each channel and the size of each column of the next factor."""
    peak = np.maximum(np.abs(low), np.abs(high))
    used = (peak > 0) & (rms > 0)
    logarithms = np.zeros_like(peak)
    np.log(rms, out=logarithms, where=used)
    logarithms -= np.log(peak, out=np.zeros_like(peak), where=used)
    logarithms[used] = logarithms[used] / 2 - (logarithms[used] / 2).mean() if used.any() else 0.0
    size = np.exp(np.clip(logarithms, -np.log(LARGEST), np.log(LARGEST)))
    sign = np.where(high >= -low, 1.0, -1.0)
    longer, shorter = peak, np.minimum(np.maximum(high, 0), np.maximum(-low, 0))

    def error(t: np.ndarray) -> float:
        return float(((t * longer).max() + (t * shorter).max()) ** 2 * np.square(rms / t).sum())

    return sign * min((np.ones_like(size), size), key=error)


def expected_ranges(factorized: Factorized) -> list[Ranges]:
    """The ranges of white noise of unit variance at the layer's input, after each stage but the last: from minus to
    plus the standard deviation.
    """
    network, order = factorized.network, factorized.order
    tensors = [tensor.astype(np.float64) for tensor in factorized.tensors]
    letters = {axis: chr(ord("a") + i) for i, axis in enumerate(network.sizes)}
    found = []
    for position in range(len(order) - 1):
        taken = order[: position + 1]
        later = {axis for index in order[position + 1 :] for axis in network.axes[index]}
        made = list(dict.fromkeys(a for index in taken for a in network.axes[index]))
        ranks = [a for a in made if a[0] == "r" and a in later]
        summed = [a for a in made if a[0] in "chw"]
        kept = [a for a in made if a[0] in "fg"]
        inputs = ",".join("".join(letters[a] for a in network.axes[index]) for index in taken)
        output = "".join(letters[a] for a in (*ranks, *kept, *summed))
        partial = np.einsum(f"{inputs}->{output}", *(tensors[index] for index in taken), optimize=len(taken) > 1)
        shape = [network.sizes[a] for a in ranks]
        power = np.square(partial).reshape(*shape, int(np.prod([network.sizes[a] for a in kept])), -1).sum(axis=-1)
        high = np.sqrt(power.max(axis=-1))
        found.append(Ranges(tuple(ranks), -high, high))
    return found


def _along(place: int, rank: int) -> list[int]:
    """The shape in which a vector broadcasts along one of ``rank`` axes."""
    return [-1 if i == place else 1 for i in range(rank)]
