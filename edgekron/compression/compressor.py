"""The compressor: from a hub to a plan, and from a plan to a factorized hub.

1. *Plan.* ``draft`` prunes where the method prunes, and surveys what is left (see ``edgekron.planning.survey``).
2. *Fit.* ``apply_plan`` walks through the network a second time, in order, with inputs from the original network and
   from the one compressed so far, and fits each layer of the plan (see ``edgekron.compression.refit``).

``compress`` does one after the other; who wants to change the plan between them, as tuning does, calls them in a row.
Without data, every layer is decomposed in closed form, by its weights alone.

Of several processes each runs its share of the images. All have the same sums then and find the same, but for rounding;
the first one's plan and factors are taken by all, so that they go on with one network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekron.errors import UserError
from edgekron.fitting.calibration import Walk
from edgekron.fitting.fit import Fit, Fitter, as_factorized, kernel_of
from edgekron.fitting.units import units_of_kernel
from edgekron.graph import Factorized, Hub, Layer
from edgekron.graph.cost import Cost, is_whole
from edgekron.graph.passes.dequantize import check_float
from edgekron.memory import give_back
from edgekron.planning.allocation import check_sizes
from edgekron.planning.candidates import METHODS, ErrorBound
from edgekron.planning.lines import check_kernels, check_lowering, ranks_of, template_of
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.planning.survey import PlanOptions, make_plan, original_layers
from edgekron.processes import ALONE, Processes, Progress, silent
from edgekron.pruning import CRITERIA, Pruning, PruningSettings, criterion_of, prune, prune_as, pruned_plan

from .refit import fit_degeneracy, refit
from .report import CompressionReport, LayerReport, dense_row, with_pruning


@dataclass(frozen=True)
class CompressionOptions(PlanOptions):
    """``PlanOptions``, and how to prune; None for the defaults."""

    pruning: PruningSettings | None = None


DEFAULTS = CompressionOptions()


@dataclass(frozen=True)
class Draft:
    """A plan that nothing is fitted to yet, and the pruned network that it is for, where channels are pruned."""

    plan: CompressionPlan
    pruned: Pruning | None = None


@dataclass(frozen=True)
class Compression:
    """The compressed hub, its plan, and the report on both."""

    hub: Hub
    plan: CompressionPlan
    report: CompressionReport


def compress(
    hub: Hub,
    *,
    model: str,
    ratios: Mapping[str, float],
    data: Sequence[np.ndarray] = (),
    method: str = "kronecker",
    options: CompressionOptions = DEFAULTS,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> Compression:
    """Compresses ``hub`` so that MACs, parameters or both fall by at least ``ratios`` ({"macs": 3.0, "parameters":
    3.0}); with ``options.rule`` instead of ratios, every layer's ranks are those that the rule gives it.

    ``method`` is a family of structures, a criterion for pruning, or both as in "qsfm+low-rank": then pruning saves
    the root of each ratio, and the family the rest. ``model`` is the network's name in plan and messages.

    ``data`` are batches float32 [n, C, H, W] of calibration images, without labels; none means data-free.
    ``processes`` share them: each is to call this with the same arguments, and all get the same network; the errors in
    the report are those of the process. Raises ``UserError`` when a ratio cannot be reached (with the best that can), a
    method is unknown, or the data do not fit.
    """
    made = draft(
        hub,
        model=model,
        ratios=ratios,
        data=data,
        method=method,
        options=options,
        processes=processes,
        progress=progress,
    )
    return apply_plan(hub, made.plan, pruned=made.pruned, data=data, processes=processes, progress=progress)


def draft(
    hub: Hub,
    *,
    model: str,
    ratios: Mapping[str, float],
    data: Sequence[np.ndarray] = (),
    method: str = "kronecker",
    options: CompressionOptions = DEFAULTS,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> Draft:
    """The plan for ``compress``, with the same arguments, and what pruning left. Raises ``UserError``."""
    criterion, family = split_method(method)
    _check_request(criterion, family, ratios, options)
    check_float(hub.model, model, "give --dequantize to fold it back to float, or compress the float model.")
    _check_data(hub, data, processes)
    if criterion is None:
        plan = make_plan(
            hub,
            model=model,
            ratios=ratios,
            data=data,
            method=family,
            options=options,
            processes=processes,
            progress=progress,
        )
        return Draft(plan)
    _check_alone(processes)
    check_sizes(original_layers(hub), ratios)
    first = {unit: math.sqrt(ratio) if family else ratio for unit, ratio in ratios.items()}
    pruned = prune(hub, criterion, options.pruning or PruningSettings(), ratios=first, data=data, progress=progress)
    factorized = None
    if family:
        left = _ratios_left(hub, pruned.hub, ratios)
        factorized = make_plan(
            pruned.hub, model=model, ratios=left, data=data, method=family, options=options, progress=progress
        )
    return Draft(pruned_plan(hub, pruned, model, factorized), pruned)


def _check_request(
    criterion: str | None, family: str, ratios: Mapping[str, float], options: CompressionOptions
) -> None:
    """Raises ``UserError`` for amounts that make no sense, or not together."""
    rule = options.rule
    for unit, ratio in ratios.items():
        if not (math.isfinite(ratio) and ratio >= 1.0):
            raise UserError(f"a ratio of {ratio:g} for {unit} makes no sense; give a number of at least 1.")
    if rule is not None and ratios:
        raise UserError("give either ratios or a rule for the ranks, not both.")
    if rule is not None and not family:
        raise UserError(f"{rule.name} is for structures; give {criterion} a ratio or a similarity, or add a structure.")
    if rule is not None and not isinstance(rule, ErrorBound) and family not in rule.methods:
        raise UserError(
            f"{rule.name} reads ranks from singular values, which works for {', '.join(rule.methods)}; "
            f"choose one of these methods, or a ratio for {family}."
        )
    if criterion is None:
        return
    similarity = None if options.pruning is None else options.pruning.similarity
    if similarity is None and not ratios:
        raise UserError(f"say how much {criterion} is to prune: by ratios, or by a similarity.")
    if similarity is not None and ratios and not family:
        raise UserError("give either ratios or a similarity, not both.")


def split_method(text: str) -> tuple[str | None, str]:
    """A method as the criterion to prune by and the family to factorize by, either of them perhaps None or empty.

    Raises ``UserError`` for one that does not exist.
    """
    words = text.split("+")
    criterion = criterion_of(words[0])
    families = words if criterion is None else words[1:]
    if len(families) > 1 or not set(families) <= set(METHODS):
        raise UserError(
            f"there is no method {text!r}; the methods are {', '.join(METHODS)}, to prune {', '.join(CRITERIA)}, or "
            "one of these and one of those, such as qsfm+low-rank."
        )
    return criterion, families[0] if families else ""


def _ratios_left(hub: Hub, pruned: Hub, ratios: Mapping[str, float]) -> dict[str, float]:
    """What the rest of the work has to save so that the whole network meets ``ratios``."""
    totals = [
        {"macs": sum(x.dense_macs for x in layers), "parameters": sum(x.dense_parameters for x in layers)}
        for layers in (hub.layers(), pruned.layers())
    ]
    return {unit: max(1.0, ratio * totals[1][unit] / totals[0][unit]) for unit, ratio in ratios.items()}


def _check_data(hub: Hub, data: Sequence[np.ndarray], processes: Processes) -> None:
    images, entry = 0, hub.inputs[0]
    for batch in data:
        images += len(batch)
        if batch.shape[1:] != tuple(hub.input_shape) or not len(batch):
            raise UserError(
                f"the calibration images have shape {list(batch.shape[1:])}; "
                f"the model's input is {list(hub.input_shape)}."
            )
        entry.check_type(batch)
    if processes.count > max(1, images):
        raise UserError(
            f"{processes.count} processes cannot share {images} calibration images; give more images, or start fewer."
        )


def _check_alone(processes: Processes) -> None:
    if processes.count > 1:
        raise UserError(f"channels are pruned by one process, not by {processes.count}; leave torchrun out.")


def apply_plan(
    hub: Hub,
    plan: CompressionPlan,
    *,
    pruned: Pruning | None = None,
    data: Sequence[np.ndarray] = (),
    pruning: PruningSettings | None = None,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> Compression:
    """Prunes and factorizes a copy of ``hub`` as ``plan`` says, fitted to ``data``; see ``compress``.

    ``pruned`` is what pruning left, where a draft of this plan has it already. Raises ``UserError``.
    """
    _check_data(hub, data, processes)
    plan.check_layers(layer.name for layer in original_layers(hub))
    kept = {name: (line.channels, line.criterion) for name, line in plan.layers.items() if line.channels}
    if kept and pruned is None:
        _check_alone(processes)
        repaired = pruning is None or pruning.repair
        pruned = prune_as(hub, kept, data=data, repaired=repaired, progress=progress)
    rows = _rows(hub, plan, pruned)
    left = hub if pruned is None else pruned.hub
    result = left.copy()
    todo = _checked(left, plan)
    if data and todo:
        with Walk(left, data, processes) as reference, Walk(result, data, processes) as other:
            for index, layer in enumerate(todo):
                progress("fit", index, len(todo))
                reference.advance(layer)
                other.advance(layer)
                line = plan.layers[layer.name]
                found = refit(layer, line, reference, other, first=index == 0, seed=index)
                made = as_factorized(layer, found.fit, line.order, line.forms, found.bias)
                result.factorize(layer.name, processes.agreed(made, Factorized.to_bytes, Factorized.from_bytes))
                row = _fitted(rows[layer.name], layer, line, found.fit)
                rows[layer.name] = replace(row, error=found.error, fit=found.name, tried=found.tried)
                give_back()
    else:
        for index, layer in enumerate(todo):
            progress("fit", index, len(todo))
            line = plan.layers[layer.name]
            kernel = kernel_of(layer)
            units = units_of_kernel(kernel)
            fitter = Fitter(template_of(layer, line), units.kernel(kernel), None)
            fit = units.fit(fitter.closed_form(*ranks_of(layer, line)))
            result.factorize(layer.name, as_factorized(layer, fit, line.order, line.forms, layer.bias))
            row = _fitted(rows[layer.name], layer, line, fit)
            rows[layer.name] = replace(row, error=fit.error, fit="weights", tried={})
    progress("fit", len(todo), len(todo))
    images = sum(len(batch) for batch in data)
    return Compression(result, plan, CompressionReport(rows, images, identity=result.identity.digest))


def _rows(hub: Hub, plan: CompressionPlan, pruned: Pruning | None) -> dict[str, LayerReport]:
    """The rows of the report before anything is fitted."""
    before = {layer.name: layer for layer in hub.layers()}
    rows = {
        name: dense_row(layer, plan.layers[name].reason if name in plan.layers else "not in the plan")
        for name, layer in before.items()
    }
    if pruned is None:
        return rows
    return with_pruning(rows, before, {layer.name: layer for layer in pruned.hub.layers()}, pruned)


def _checked(hub: Hub, plan: CompressionPlan) -> list[Layer]:
    """The layers that the plan factorizes. Raises ``UserError`` for a line that does not fit its layer."""
    todo = [layer for layer in hub.layers() if plan.layers.get(layer.name, LayerPlan()).method != "dense"]
    check_kernels(plan, todo)
    for layer in todo:
        if layer.frozen_reason is not None:
            raise UserError(f"the plan factorizes layer {layer.name}, but it {layer.frozen_reason}")
        check_lowering(layer, plan.layers[layer.name])
    return todo


def _fitted(row: LayerReport, layer: Layer, line: LayerPlan, fit: Fit) -> LayerReport:
    """The row of a layer that became what ``line`` says."""
    order = line.order or fit.network.best_order(layer.input_size, layer.geometry)
    macs = fit.network.macs(order, layer.input_size, layer.geometry)
    watched = line.method == "cp" and len(fit.tensors) > 2
    return replace(
        row,
        method=line.method,
        shape=line.shape,
        rank=ranks_of(layer, line),
        compressed=Cost(layer.dense_macs if is_whole(line.forms) else macs, fit.network.parameters),
        reason=line.reason,
        degeneracy=fit_degeneracy(fit) if watched else None,
    )
