"""The fit of one layer of a plan, where the layers before it are compressed already.

The layer is fitted to the original outputs from the original inputs, from the inputs that the compressed network gives
it, and from these with a lean towards the original kernel. The fit with the least error on held-out images stays, with
its bias corrected.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from edgekron.fitting.calibration import Walk
from edgekron.fitting.fit import Fit, Fitter, kernel_of
from edgekron.fitting.roots import LARGE
from edgekron.fitting.sampled import AnyMoments
from edgekron.fitting.units import sample_in_units
from edgekron.graph import Layer
from edgekron.memory import give_back
from edgekron.planning.lines import ranks_of, template_of
from edgekron.planning.plan import LayerPlan
from edgekron.structures import CP, Ranks, Structure
from edgekron.structures.cp import LIMIT, degeneracy

log = logging.getLogger(__name__)

#: How far a fit to the compressed network's inputs leans towards the original kernel; the best on held-out images is
#: kept.
LEANS = (0.0, 0.03)
#: Steps of L-BFGS in a layer, in a wide one, and how many times as many where the closed form is no optimum.
ITERATIONS, WIDE_ITERATIONS, FARTHER = 40, 25, 3


@dataclass(frozen=True)
class Refit:
    """The chosen fit of a layer with its bias [F]; the name and the held-out error of each try."""

    fit: Fit
    bias: np.ndarray
    name: str
    tried: Mapping[str, float]

    @property
    def error(self) -> float:
        """The error of the chosen fit."""
        return self.tried[self.name]


def refit(layer: Layer, line: LayerPlan, reference: Walk, other: Walk, *, first: bool, seed: int) -> Refit:
    """Fits ``layer`` as its ``line`` says, with inputs from the walks through the original and the other network.

    ``first`` says that both networks give the layer the same inputs; ``seed`` draws the patches.
    """
    plain, template, ranks = kernel_of(layer), template_of(layer, line), ranks_of(layer, line)
    taken, units = sample_in_units(layer, plain, reference, reference, seed)
    kernel = units.kernel(plain)
    tries = [("original inputs", _fit(template, kernel, taken.moments, ranks))]
    if not first:
        del taken
        taken, _ = sample_in_units(layer, plain, reference, other, seed, units)
        for lean in LEANS:
            moments = taken.moments.lean(kernel, lean) if lean else taken.moments
            fitted = _fit(template, moments.least_squares(kernel), moments, ranks)
            tries.append((f"compressed inputs, lean {lean:g}", fitted))
    biases = [taken.moments.bias(fit.kernel()) for _, fit in tries]
    errors = [taken.error(fit.kernel(), bias) for (_, fit), bias in zip(tries, biases, strict=True)]
    best = min(range(len(tries)), key=errors.__getitem__)
    tried = {name: error for (name, _), error in zip(tries, errors, strict=True)}
    log.debug("%s: %s of %s", layer.name, tries[best][0], tried)
    bias = units.bias(biases[best]).float().numpy()
    return Refit(units.fit(tries[best][1]), bias, tries[best][0], tried)


def iterations(template: Structure) -> int:
    """L-BFGS steps: fewer in the widest layers, where a step takes longest and the first ones gain most, and more where
    the closed form is no optimum even for the weights.
    """
    wide = math.prod(template.kernel_shape[1:]) > LARGE
    return (WIDE_ITERATIONS if wide else ITERATIONS) * (1 if template.optimal else FARTHER)


def _fit(template: Structure, kernel: Tensor, moments: AnyMoments, ranks: Ranks) -> Fit:
    fitter = Fitter(template, kernel, moments)
    del kernel
    closed = fitter.closed_form(*ranks)
    fit = fitter.refined(closed, iterations(template))
    if isinstance(template, CP) and fit_degeneracy(fit) > max(LIMIT, fit_degeneracy(closed)):
        log.warning("CP of %s: refined, its terms would cancel (%.1f); left unrefined", template, fit_degeneracy(fit))
        fit = closed
    del fitter
    give_back()
    return fit


def fit_degeneracy(fit: Fit) -> float:
    """How far the terms of a fit of CP cancel: root of their summed squared norms over the norm of the kernel."""
    return degeneracy([tensor.mT for tensor in fit.tensors], fit.kernel())
