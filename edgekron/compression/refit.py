"""TBD."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from torch import Tensor

from edgekron.fitting.calibration import Walk, sample
from edgekron.fitting.fit import LARGE, Fit, Fitter, kernel_of, least_squares_kernel
from edgekron.fitting.moments import Moments
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


ITERATIONS, WIDE_ITERATIONS, FARTHER = 40, 25, 3


def _fit_layer(
    layer: Layer, line: LayerPlan, reference: Walk, other: Walk, *, first: bool, seed: int
) -> tuple[Fit, np.ndarray, dict[str, Any]]:
    """The fit with the least error on held-out images, its bias, and what is reported of it."""
    kernel, template, ranks = kernel_of(layer), template_of(layer, line), ranks_of(layer, line)
    taken = sample(layer, kernel, reference, reference, seed)
    tries = [("original inputs", _fit(template, kernel, taken.moments, ranks))]
    if not first:
        del taken
        taken = sample(layer, kernel, reference, other, seed)
        for lean in LEANS:
            moments = taken.moments.lean(kernel, lean) if lean else taken.moments
            fitted = _fit(template, least_squares_kernel(moments, kernel), moments, ranks)
            tries.append((f"compressed inputs, lean {lean:g}", fitted))
    biases = [taken.moments.bias(fit.kernel()) for _, fit in tries]
    errors = [taken.error(fit.kernel(), bias) for (_, fit), bias in zip(tries, biases, strict=True)]
    best = min(range(len(tries)), key=errors.__getitem__)
    tried = {name: error for (name, _), error in zip(tries, errors, strict=True)}
    facts = {"error": errors[best], "fit": tries[best][0], "tried": tried}
    log.debug("%s: %s", layer.name, facts)
    return tries[best][1], biases[best].float().numpy(), facts


def iterations(template: Structure) -> int:
    """L-BFGS steps: fewer in the widest layers, where a step takes longest and the first ones gain most, and more where
    the closed form is no optimum even for the weights.
    """
    wide = math.prod(template.kernel_shape[1:]) > LARGE
    return (WIDE_ITERATIONS if wide else ITERATIONS) * (1 if template.optimal else FARTHER)


def _fit(template: Structure, kernel: Tensor, moments: Moments, ranks: Ranks) -> Fit:
    fitter = Fitter(template, kernel, moments)
    del kernel
    closed = fitter.closed_form(*ranks)
    fit = fitter.refined(closed, iterations(template))
    if isinstance(template, CP) and _degeneracy(fit) > max(LIMIT, _degeneracy(closed)):
        log.warning("CP of %s: refined, its terms would cancel (%.1f); left unrefined", template, _degeneracy(fit))
        fit = closed
    del fitter
    give_back()
    return fit


def _degeneracy(fit: Fit) -> float:
    return degeneracy([tensor.mT for tensor in fit.tensors], fit.kernel())
