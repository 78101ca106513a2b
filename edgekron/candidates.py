"""What each layer could become: structures at ranks, with their cost and the error that they make.

A candidate costs what it executes: multiply-accumulates in the cheapest contraction order for one image, and stored
values. Only candidates that save multiply-accumulates are offered, so a layer that cannot gain stays dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .fit import Fitter
from .memory import give_back
from .structures import KroneckerShape, shapes

if TYPE_CHECKING:
    from .calibration import Sample
    from .graph import Layer

#: Savings that are tried in each layer: dense MACs over the candidate's.
SAVINGS = (1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.5, 8.0, 10.0, 13.0, 16.0, 20.0, 26.0, 32.0)

#: Held-out patches below this number do not judge.
FEWEST_PATCHES = 256

#: Runtimes pack output channels in tiles: ranks are rounded down to a multiple of the largest of these not above half
#: of them.
RANK_MULTIPLES = (16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Candidate:
    """One way to store a layer. ``template`` is None for the dense layer; ``error`` is relative to the outputs'
    variance.
    """

    macs: int
    parameters: int
    error: float
    template: KroneckerShape | None = None
    rank: int = 0
    order: tuple[int, ...] = ()


def dense_candidate(layer: Layer) -> Candidate:
    """The layer as it is."""
    return Candidate(layer.dense_macs, layer.dense_parameters, 0.0)


def kronecker_templates(kernel_shape: tuple[int, int, int, int], groups: int) -> Iterator[KroneckerShape]:
    """Kronecker shapes worth a closer look: the MACs at equal parameters range over 500x, and the lean shapes have
    small C1 and F2 (channel and spatial SVD have 1 and 1), or make a depthwise first stage (C2 = F2 = 1).
    """
    large = math.prod(kernel_shape[1:]) > 1200
    for shape in shapes(kernel_shape, groups):
        c1, f2 = shape.c[0], shape.f[1]
        depthwise = shape.c[1] == 1 and f2 == 1 and shape.h[0] * shape.w[0] == 1
        if depthwise or c1 * f2 <= (2 if large else 8):
            yield shape


#: The templates of each method.
METHODS: dict[str, Callable[[tuple[int, int, int, int], int], Iterator[KroneckerShape]]] = {
    "kronecker": kronecker_templates,
}


def rounded_rank(rank: float) -> int:
    """``rank`` rounded down to what runtimes run well."""
    whole = int(rank)
    multiple = next((m for m in RANK_MULTIPLES if 2 * m <= whole), 1)
    return whole - whole % multiple


def candidates(layer: Layer, kernel: Tensor, taken: Sample | None, method: str) -> list[Candidate]:
    """The dense layer and every candidate that no other beats in MACs, parameters and error alike."""
    found: list[Candidate] = []
    dense = dense_candidate(layer)
    # The exact error costs F * d^2; on held-out patches it costs F * d * patches, which is less in the widest layers.
    on_patches = taken is not None and math.prod(layer.kernel_shape[1:]) > len(taken.x) >= FEWEST_PATCHES
    for template in METHODS[method](layer.kernel_shape, layer.groups):
        network = template.network(1)
        order = network.best_order(layer.input_size, layer.geometry)
        macs, parameters = network.macs(order, layer.input_size, layer.geometry), network.parameters
        limits = {rounded_rank(min(dense.macs / saving / macs, template.max_rank)) for saving in SAVINGS}
        ranks = sorted(rank for rank in limits if rank >= 1)
        if not ranks:
            continue
        fitter = Fitter(template, kernel, taken.moments if taken else None)
        for rank in ranks:
            if taken is not None and on_patches:
                fitted = fitter.closed_form_kernel(rank)
                error = taken.error(fitted, taken.moments.bias(fitted))
            else:
                error = fitter.closed_form_error(rank)
            found.append(Candidate(rank * macs, rank * parameters, error, template, rank, order))
        del fitter
        give_back()
    # Dense stays the first whatever the others are: it is what the ratios are counted from.
    return [dense, *undominated(found)]


def undominated(found: list[Candidate]) -> list[Candidate]:
    """Those that no other candidate matches or beats in all of MACs, parameters and error."""
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda c: (c.error, c.macs, c.parameters)):
        if not any(k.macs <= one.macs and k.parameters <= one.parameters for k in kept):
            kept.append(one)
    return kept
