"""The candidates for each layer: structures at ranks, with their costs and their errors.

A candidate costs what it executes: multiply-accumulates in the cheapest contraction order for one image, and stored
values. Only candidates that save multiply-accumulates are offered, so a layer that cannot gain stays dense. A structure
of a family for storage is offered also if it only stores less: its kernel is then expanded when the file is loaded, and
costs the dense multiply-accumulates.

A runtime computes the output channels of a stage in blocks, as many at a time as its registers take, and pads the last
block: 48 outputs by blocks of 32 take as long as 64. Where the size of a block is known (``fill``), the largest ranks
that reach a saving are looked for among ranks that pad hardly more than the dense layer does, then among ranks that
would do so with half the block, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from edgekron.fitting.fit import Fitter
from edgekron.memory import give_back
from edgekron.structures import FAMILIES, Ranks, Structure

from .ranks import RankRule, path

if TYPE_CHECKING:
    from edgekron.algebra import FactorNetwork
    from edgekron.fitting.calibration import Sample
    from edgekron.graph import Layer

#: Savings that are tried in each layer: dense MACs over the candidate's, or parameters where MACs cannot be saved.
SAVINGS = (1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.5, 8.0, 10.0, 13.0, 16.0, 20.0, 26.0, 32.0)

#: Input dimensions up to which a candidate's error is computed from the moments; held-out patches below this number do
#: not judge.
EXACT, FEWEST_PATCHES = 2304, 256

#: How much more of its stages' outputs a candidate may pad than the dense layer.
PADDING = 1.1

#: The families by name, and all that run as plain convolutions together.
METHODS: dict[str, tuple[str, ...]] = {name: (name,) for name in FAMILIES} | {
    "auto": ("kronecker", "tucker", "cp", "tt", "tr")
}


@dataclass(frozen=True)
class Candidate:
    """One way to store a layer. ``template`` is None for the dense layer; ``error`` is relative to the outputs'
    variance; ``expanded`` says that the kernel is expanded when the file is loaded.
    """

    macs: int
    parameters: int
    error: float
    method: str = "dense"
    template: Structure | None = None
    ranks: Ranks = ()
    order: tuple[int, ...] = ()
    expanded: bool = False


@dataclass(frozen=True)
class ErrorBound:
    """In every layer the fewest MACs, then parameters, whose closed form has a relative squared error of at most
    ``error`` on the layer's original inputs.
    """

    error: float

    @property
    def name(self) -> str:
        """For plans."""
        return f"an error of at most {self.error:g}"

    def choices(self, options: Sequence[Candidate]) -> list[Candidate]:
        """The dense candidate first, then the chosen candidate if another was chosen."""
        within = [c for c in options if c.error <= self.error]
        best = min(within, key=lambda c: (c.macs, c.parameters))
        return [options[0]] if best is options[0] else [options[0], best]


@dataclass(frozen=True)
class _Cost:
    """A structure at ranks, before anything is fitted."""

    ranks: Ranks
    order: tuple[int, ...]
    macs: int
    parameters: int
    expanded: bool = False
    #: (multiply-accumulates, output channels) of each stage.
    stages: tuple[tuple[int, int], ...] = ()

    def padding(self, fill: int) -> float:
        """Multiply-accumulates with outputs padded to blocks of ``fill``, over those without."""
        padded = sum(macs * _blocks(outputs, fill) / outputs for macs, outputs in self.stages)
        return padded / max(1, sum(macs for macs, _ in self.stages))


def dense_candidate(layer: Layer) -> Candidate:
    """The layer as it is."""
    return Candidate(layer.dense_macs, layer.dense_parameters, 0.0)


def candidates(layer: Layer, kernel: Tensor, taken: Sample | None, method: str, *, fill: int = 1) -> list[Candidate]:
    """The dense layer and every candidate that no other beats in MACs, parameters and error alike."""
    found: list[Candidate] = []
    # The exact error costs F * d^2. In the widest layers it is taken on the held-out patches, for F * d * patches.
    on_patches = taken is not None and math.prod(layer.kernel_shape[1:]) > EXACT and len(taken.x) >= FEWEST_PATCHES
    for name, template in structures(layer, method):
        if not _could_gain(layer, name, template):
            continue
        fitter = Fitter(template, kernel, taken.moments if taken else None)
        # Without a spectrum, each rank is an iteration or a chain of SVDs of its own.
        savings = SAVINGS if fitter.spectra else SAVINGS[::3]
        costs = _costs(layer, name, template, path(template, fitter.spectra))
        for one in _spread(layer, costs, savings, fill):
            if taken is not None and on_patches:
                fitted = fitter.closed_form_kernel(*one.ranks)
                error = taken.error(fitted, taken.moments.bias(fitted))
            else:
                error = fitter.closed_form_error(*one.ranks)
            found.append(_candidate(one, error, name, template))
        del fitter
        give_back()
    # Dense stays the first whatever the others are: it is what the ratios are counted from.
    return [dense_candidate(layer), *undominated(found)]


def by_rule(layer: Layer, kernel: Tensor, taken: Sample | None, method: str, rule: RankRule) -> Candidate:
    """The structure of ``method`` with the fewest MACs, then parameters, at the ranks of ``rule``; dense if none gains.

    ``method`` is one of the rule's.
    """
    found: list[Candidate] = []
    for name, template in structures(layer, method):
        if not _could_gain(layer, name, template):
            continue
        fitter = Fitter(template, kernel, taken.moments if taken else None)
        ranks = rule.ranks(fitter.spectra)
        costs = _costs(layer, name, template, [ranks]) if min(ranks) > 0 else []
        found += [_candidate(one, fitter.closed_form_error(*one.ranks), name, template) for one in costs]
        del fitter
        give_back()
    return min(found, key=lambda c: (c.macs, c.parameters), default=dense_candidate(layer))


def structures(layer: Layer, method: str) -> Iterator[tuple[str, Structure]]:
    """Every structure of ``method`` for the layer, each once, with the family it is of."""
    seen = set()
    for name in METHODS[method]:
        for template in FAMILIES[name].templates(layer.kernel_shape, layer.groups):
            if template not in seen:
                seen.add(template)
                yield name, template


def _candidate(one: _Cost, error: float, method: str, template: Structure) -> Candidate:
    return Candidate(one.macs, one.parameters, error, method, template, one.ranks, one.order, one.expanded)


def _could_gain(layer: Layer, method: str, template: Structure) -> bool:
    """Whether a structure saves anything at the lowest rank: else its closed form need not be computed."""
    return bool(_costs(layer, method, template, [(1,) * len(template.max_ranks)]))


def _costs(layer: Layer, method: str, template: Structure, ranks: Sequence[Ranks]) -> list[_Cost]:
    """Those of ``ranks`` that save multiply-accumulates, or, in a family for storage, at least parameters."""
    found = []
    order: tuple[int, ...] = ()
    for one in ranks:
        network = template.network(*one)
        if not order or len(one) > 1:
            # With a single rank, every order's cost is proportional to it.
            order = network.best_order(layer.input_size, layer.geometry)
        macs, parameters = network.macs(order, layer.input_size, layer.geometry), network.parameters
        if macs < layer.dense_macs:
            found.append(_Cost(one, order, macs, parameters, stages=_stages(layer, network, order)))
        elif parameters < layer.dense_parameters and FAMILIES[method].stores:
            found.append(_Cost(one, order, layer.dense_macs, parameters, expanded=True))
    return found


def _stages(layer: Layer, network: FactorNetwork, order: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    found, size = [], layer.input_size
    for stage in network.stages(order, layer.geometry):
        found.append((stage.macs(size), stage.size(stage.new)))
        size = stage.geometry.output_size(size, stage.kernel)
    return tuple(found)


def _blocks(outputs: int, fill: int) -> int:
    return math.ceil(outputs / fill) * fill


def _filled(pool: list[_Cost], outputs: int, fill: int) -> list[_Cost]:
    """Those of ``pool`` that fill blocks of ``fill``, or of half of it, and so on; the dense layer has ``outputs``."""
    while fill > 1:
        allowed = PADDING * _blocks(outputs, fill) / outputs
        if filled := [one for one in pool if one.padding(fill) <= allowed]:
            return filled
        fill //= 2
    return pool


def _spread(layer: Layer, costs: Sequence[_Cost], savings: Sequence[float], fill: int) -> list[_Cost]:
    """For each of ``savings``, the candidate of the largest ranks that reaches it and fills its blocks."""
    outputs = layer.kernel_shape[0] // layer.groups
    contracted = [c for c in costs if not c.expanded]
    expanded = [c for c in costs if c.expanded]
    chosen: dict[Ranks, _Cost] = {}
    for saving in savings:
        for pool, size in (
            ([c for c in contracted if c.macs * saving <= layer.dense_macs], "macs"),
            ([c for c in expanded if c.parameters * saving <= layer.dense_parameters], "parameters"),
        ):
            if pool:
                one = max(_filled(pool, outputs, fill), key=lambda c: (getattr(c, size), c.parameters))
                chosen[one.ranks] = one
    return list(chosen.values())


def undominated(found: list[Candidate]) -> list[Candidate]:
    """Those that no other candidate matches or beats in all of MACs, parameters and error."""
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda c: (c.error, c.macs, c.parameters)):
        if not any(k.macs <= one.macs and k.parameters <= one.parameters for k in kept):
            kept.append(one)
    return kept
