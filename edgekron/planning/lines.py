"""From a line of a plan to the structure, ranks and factors of a layer, or to one sentence that says why the line is
wrong.

People edit plans, and may apply a plan to another model than the one that it was made for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgekron.algebra import FactorNetwork, StructureError
from edgekron.algebra.lowering import lower
from edgekron.errors import UserError
from edgekron.graph import Layer
from edgekron.structures import FAMILIES, Ranks, Structure, TensorRing
from edgekron.structures.splits import divisors

from .plan import CompressionPlan, LayerPlan, plain

log = logging.getLogger(__name__)


def check_kernels(plan: CompressionPlan, layers: Sequence[Layer]) -> None:
    """Raises ``UserError`` for a plan of another model, with all layers whose kernels differ."""
    differing = []
    for layer in layers:
        line = plan.layers[layer.name]
        if layer.frozen_reason is None and line.method in FAMILIES:
            shape = _parsed(layer, line).kernel_shape
            if shape != layer.kernel_shape:
                differing.append(f"{layer.name} ({list(shape)}, not {list(layer.kernel_shape)})")
    if len(differing) > 1:
        raise UserError(f"the plan was made for another model ({plan.model}): kernels differ in {', '.join(differing)}")


def _parsed(layer: Layer, line: LayerPlan) -> Structure:
    try:
        return FAMILIES[line.method].parse(line.shape)
    except StructureError as error:
        raise UserError(f"the plan's line of layer {layer.name} is wrong: {error}") from None


def template_of(layer: Layer, line: LayerPlan) -> Structure:
    """The structure that a line names. Raises ``UserError`` for an unknown one, or one of another kernel."""
    if line.method not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"the plan wants method {line.method!r} for layer {layer.name}; there are {known}.")
    shape = _parsed(layer, line)
    if shape.kernel_shape != layer.kernel_shape or shape.groups != layer.groups:
        f, c, _, _ = layer.kernel_shape
        allowed = ", ".join(map(str, divisors(f // layer.groups))), ", ".join(map(str, divisors(c)))
        raise UserError(
            f"the plan's shape {line.shape!r} of layer {layer.name} makes a kernel {list(shape.kernel_shape)} in "
            f"{shape.groups} groups; the layer has {list(layer.kernel_shape)} in {layer.groups}. Give parts of f that "
            f"divide its outputs ({allowed[0]}) and of c that divide its inputs ({allowed[1]}); or was the plan made "
            "for another model?"
        )
    return shape


def ranks_of(layer: Layer, line: LayerPlan) -> Ranks:
    """The line's ranks; one above full rank gains nothing and is cut to it. Raises ``UserError``."""
    template = template_of(layer, line)
    full = template.max_ranks
    if len(line.ranks) != len(full) or min(line.ranks) < 1:
        raise UserError(
            f"the plan's rank {plain(line.ranks)} of layer {layer.name} must be {len(full)} of at least 1; "
            f"the largest are {plain(full)}."
        )
    if isinstance(template, TensorRing):
        # The ranks of a ring bound each other: none is too large by itself.
        return line.ranks
    if any(rank > most for rank, most in zip(line.ranks, full, strict=True)):
        given = plain(line.ranks)
        log.warning("layer %s: rank %s is above the full rank %s, which is used", layer.name, given, plain(full))
    return tuple(min(rank, most) for rank, most in zip(line.ranks, full, strict=True))


def factor_network(layer: Layer, line: LayerPlan) -> FactorNetwork:
    """The factors that a plan's line gives a layer. Raises ``UserError`` for a line that does not fit the layer."""
    return template_of(layer, line).network(*ranks_of(layer, line))


def check_lowering(layer: Layer, line: LayerPlan) -> None:
    """Raises ``UserError`` for an order or forms that cannot be exported, before the work of fitting is done."""
    network = factor_network(layer, line)
    order = line.order or tuple(range(len(network.axes)))
    for target, forms in ({"": ("dense",)} | dict(line.forms)).items():
        try:
            network.stages(order, layer.geometry)
            lower(network, order, layer.geometry, forms, bias=False)
        except StructureError as error:
            where = f" for {target}" if target else ""
            raise UserError(f"the plan's line of layer {layer.name} cannot be lowered{where}: {error}") from None
