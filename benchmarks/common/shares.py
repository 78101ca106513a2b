"""A plan by hand: every layer gets a share of the parameters, and the best structure of its family for that share.

Within a structure one threshold cuts all spectra of the kernel, whitened by the layer's inputs, so that every bond
loses the same; among the structures the one stays whose closed form has the least error on held-out images. Parameters
that a layer leaves unused go to the layers after that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from edgekron.errors import UserError
from edgekron.fitting.calibration import Walk, sample
from edgekron.fitting.fit import Fitter
from edgekron.graph import Hub, Layer
from edgekron.planning.candidates import structures
from edgekron.planning.plan import TARGETS, CompressionPlan, LayerPlan
from edgekron.structures import Ranks, Spectrum, Structure


def plan_by_shares(
    hub: Hub,
    *,
    model: str,
    parameters: int,
    shares: Mapping[str, float],
    families: Mapping[str, str],
    data: Sequence[np.ndarray],
) -> CompressionPlan:
    """The plan that shares ``parameters`` among the layers of ``shares``; the others stay dense.

    ``families`` says of which family a layer's structure is, by its kind, "conv" or "linear"; ``data`` are batches
    float32 [n, C, H, W]. Raises ``UserError`` when a layer's share is too small for any structure.
    """
    lines = {}
    left, waiting = parameters, sum(shares.values())
    with Walk(hub, data) as walk:
        for index, layer in enumerate(hub.layers()):
            if layer.name not in shares:
                lines[layer.name] = LayerPlan(reason="left dense by hand")
                continue
            walk.advance(layer)
            share = int(left * shares[layer.name] / waiting)
            lines[layer.name], used = _line(layer, families[layer.kind], share, walk, index)
            left, waiting = left - used, waiting - shares[layer.name]
    return CompressionPlan(model, lines)


def _line(layer: Layer, family: str, parameters: int, walk: Walk, seed: int) -> tuple[LayerPlan, int]:
    """The line of the best structure of ``family`` with at most ``parameters``, and the structure's own number."""
    if layer.kernel is None:
        raise UserError(f"layer {layer.name} has no kernel: {layer.frozen_reason}.")
    kernel = torch.from_numpy(layer.kernel.copy())
    taken = sample(layer, kernel, walk, walk, seed)
    found = []
    for method, template in structures(layer, family):
        fitter = Fitter(template, kernel, taken.moments)
        ranks = _largest(template, fitter.spectra, parameters)
        if ranks:
            fitted = fitter.closed_form_kernel(*ranks)
            found.append((taken.error(fitted, taken.moments.bias(fitted)), method, template, ranks))
    if not found:
        raise UserError(f"no {family} structure of layer {layer.name} has at most {parameters} parameters.")
    error, method, template, ranks = min(found, key=lambda one: one[0])
    network = template.network(*ranks)
    order = network.best_order(layer.input_size, layer.geometry)
    saves = network.macs(order, layer.input_size, layer.geometry) < layer.dense_macs
    forms = {} if saves else dict.fromkeys(TARGETS, ("expand",))
    reason = f"the best of its family with {parameters} parameters: a closed form with an error of {error:.3f}"
    return LayerPlan(method, str(template), ranks, order, forms, reason), network.parameters


def _largest(template: Structure, spectra: Sequence[Spectrum], parameters: int) -> Ranks:
    """The largest ranks with equal tails of all ``spectra`` and at most ``parameters``; none if one of each is more."""
    tails = [spectrum.tail() for spectrum in spectra]
    found: Ranks = ()
    for level in torch.cat(tails).unique().flip(0):
        ranks = tuple(
            min(max(1, int((tail > level).sum())), most) for tail, most in zip(tails, template.max_ranks, strict=True)
        )
        if template.network(*ranks).parameters > parameters:
            break
        found = ranks
    return found
