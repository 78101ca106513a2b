"""The compressor: a hub and budgets, or a hub and a plan, to a factorized hub.

1. *Survey.* One walk through the network. Each layer's inputs give its moments, the moments give the error of every
   candidate, and a probe (the layer alone replaced by a candidate near the wanted ratio) gives how much of an error
   in this layer arrives at the network's output.
2. *Allocation.* The candidates that meet the budgets with the least total error at the output become the plan.
3. *Fit.* A second walk, in order, with inputs from the original network and from the one compressed so far. Each
   layer is fitted to the original outputs from the original inputs, from the compressed network's inputs, and from
   these with a lean towards the original kernel; what is best on held-out images stays, with its bias corrected.

Without data, every layer is decomposed in closed form, by its weights alone.

Of several processes each runs its share of the images. All have the same sums then and find the same, but for rounding;
the first one's plan and factors are taken by all, so that they go on with one network.

Where channels are pruned as well, that comes first (see ``edgekron.pruning``); what follows sees the pruned network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekron.errors import UserError
from edgekron.fitting.calibration import Walk
from edgekron.fitting.fit import Fit, Fitter, as_factorized, kernel_of
from edgekron.graph import Factorized, Hub, Layer
from edgekron.graph.cost import is_whole
from edgekron.memory import give_back
from edgekron.planning.candidates import (
    METHODS,
    ErrorBound,
)
from edgekron.planning.lines import check_kernels, check_lowering, ranks_of, template_of
from edgekron.planning.plan import CompressionPlan, LayerPlan, plain
from edgekron.planning.ranks import RankRule
from edgekron.planning.survey import _original_layers, make_plan
from edgekron.processes import ALONE, Processes, Progress
from edgekron.pruning import CRITERIA, Pruning, PruningSettings, criterion_of, prune, prune_as, pruned_plan, pruned_rows

from .refit import _degeneracy, _fit_layer
from .report import dense_row, report_of


@dataclass(frozen=True)
class Compression:
    """The factorized hub, its plan, and a report of plain data: totals, and for each layer cost, error and choice."""

    hub: Hub
    plan: CompressionPlan
    report: dict[str, Any]


def compress(
    hub: Hub,
    *,
    model: str,
    ratios: Mapping[str, float],
    data: Sequence[np.ndarray] = (),
    method: str = "kronecker",
    rule: RankRule | ErrorBound | None = None,
    fill: int = 1,
    revise: Callable[[CompressionPlan], CompressionPlan] = lambda plan: plan,
    pruning: PruningSettings | None = None,
    processes: Processes = ALONE,
    progress: Progress = lambda what, done, total: None,
) -> Compression:
    """Compresses ``hub`` so that MACs, parameters or both fall by at least ``ratios`` ({"macs": 3.0, "parameters":
    3.0}); with a ``rule`` instead of ratios, every layer's ranks are those that the rule gives it. ``fill`` is
    the number of output channels that the runtime computes at a time: ranks are preferred that pad little of it.
    ``revise`` may change the plan before anything is fitted to it.

    ``method`` is a family of structures, a criterion for pruning, or both as in "qsfm+low-rank": then pruning saves
    the root of each ratio, and the family the rest. ``pruning`` says how to prune.

    ``data`` are batches float32 [n, C, H, W] of calibration images, without labels; none means data-free.
    ``processes`` share them: each is to call this with the same arguments, and all get the same network; the errors in
    the report are those of the process. Raises ``UserError`` when a ratio cannot be reached (with the best that can), a
    method is unknown, or the data do not fit.
    """
    criterion, method = split_method(method)
    for unit, ratio in ratios.items():
        if not (math.isfinite(ratio) and ratio >= 1.0):
            raise UserError(f"a ratio of {ratio:g} for {unit} makes no sense; give a number of at least 1.")
    if rule is not None and ratios:
        raise UserError("give either ratios or a rule for the ranks, not both.")
    if rule is not None and not method:
        raise UserError(f"{rule.name} is for structures; give {criterion} a ratio or a similarity, or add a structure.")
    if rule is not None and not isinstance(rule, ErrorBound) and method not in rule.methods:
        raise UserError(
            f"{rule.name} reads ranks from singular values, which works for {', '.join(rule.methods)}; "
            f"choose one of these methods, or a ratio for {method}."
        )
    _check_data(hub, data, processes)
    if criterion is None:
        plan = make_plan(
            hub,
            model=model,
            ratios=ratios,
            data=data,
            method=method,
            rule=rule,
            fill=fill,
            processes=processes,
            progress=progress,
        )
        return apply_plan(hub, revise(plan), data=data, processes=processes, progress=progress)
    _check_alone(processes)
    _original_layers(hub)
    settings = pruning or PruningSettings()
    if settings.similarity is None and not ratios:
        raise UserError(f"say how much {criterion} is to prune: by ratios, or by a similarity.")
    if settings.similarity is not None and ratios and not method:
        raise UserError("give either ratios or a similarity, not both.")
    first = {unit: math.sqrt(ratio) if method else ratio for unit, ratio in ratios.items()}
    pruned = prune(hub, criterion, settings, ratios=first, data=data, progress=progress)
    factorized = None
    if method:
        left = _ratios_left(hub, pruned.hub, ratios)
        factorized = make_plan(
            pruned.hub, model=model, ratios=left, data=data, method=method, rule=rule, fill=fill, progress=progress
        )
    plan = revise(pruned_plan(hub, pruned, model, factorized))
    return _apply(hub, plan, pruned, data, processes, progress)


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
    images = 0
    for batch in data:
        images += len(batch)
        if batch.shape[1:] != tuple(hub.input_shape) or not len(batch):
            raise UserError(
                f"the calibration images have shape {list(batch.shape[1:])}; "
                f"the model's input is {list(hub.input_shape)}."
            )
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
    data: Sequence[np.ndarray] = (),
    pruning: PruningSettings | None = None,
    processes: Processes = ALONE,
    progress: Progress = lambda what, done, total: None,
) -> Compression:
    """Prunes and factorizes a copy of ``hub`` as ``plan`` says, fitted to ``data``; see ``compress``. Raises
    ``UserError``.
    """
    _check_data(hub, data, processes)
    plan.check_layers(layer.name for layer in _original_layers(hub))
    kept = {name: (line.channels, line.criterion) for name, line in plan.layers.items() if line.channels}
    if not kept:
        return _apply(hub, plan, None, data, processes, progress)
    _check_alone(processes)
    repaired = pruning is None or pruning.repair
    pruned = prune_as(hub, kept, data=data, repaired=repaired, progress=progress)
    return _apply(hub, plan, pruned, data, processes, progress)


def _apply(
    original: Hub,
    plan: CompressionPlan,
    pruned: Pruning | None,
    data: Sequence[np.ndarray],
    processes: Processes,
    progress: Progress,
) -> Compression:
    """Factorizes ``original``, or what pruning left of it."""
    hub = original if pruned is None else pruned.hub
    result = hub.copy()
    before = {layer.name: layer for layer in _original_layers(original)}
    layers = hub.layers()
    rows: dict[str, dict[str, Any]] = {
        layer.name: dense_row(layer, plan.layers[layer.name].reason if layer.name in plan.layers else "not in the plan")
        for layer in before.values()
    }
    if pruned is not None:
        pruned_rows(rows, before, {layer.name: layer for layer in layers}, pruned)
    todo = [layer for layer in layers if plan.layers.get(layer.name, LayerPlan()).method != "dense"]
    check_kernels(plan, todo)
    for layer in todo:
        if layer.frozen_reason is not None:
            raise UserError(f"the plan factorizes layer {layer.name}, but it {layer.frozen_reason}")
        check_lowering(layer, plan.layers[layer.name])
    if data and todo:
        with Walk(hub, data, processes) as reference, Walk(result, data, processes) as other:
            for index, layer in enumerate(todo):
                progress("fit", index, len(todo))
                reference.advance(layer)
                other.advance(layer)
                line = plan.layers[layer.name]
                fitted, bias, facts = _fit_layer(layer, line, reference, other, first=index == 0, seed=index)
                made = as_factorized(layer, fitted, line.order, line.forms, bias)
                result.factorize(layer.name, processes.agreed(made, Factorized.to_bytes, Factorized.from_bytes))
                rows[layer.name] |= _facts(layer, line, fitted) | facts
                give_back()
    else:
        for index, layer in enumerate(todo):
            progress("fit", index, len(todo))
            line = plan.layers[layer.name]
            fitted = Fitter(template_of(layer, line), kernel_of(layer), None).closed_form(*ranks_of(layer, line))
            result.factorize(layer.name, as_factorized(layer, fitted, line.order, line.forms, layer.bias))
            rows[layer.name] |= _facts(layer, line, fitted) | {"error": fitted.error, "fit": "weights"}
    progress("fit", len(todo), len(todo))
    return Compression(result, plan, report_of(rows, sum(len(batch) for batch in data)))
















def _facts(layer: Layer, line: LayerPlan, fit: Fit) -> dict[str, Any]:
    order = line.order or fit.network.best_order(layer.input_size, layer.geometry)
    macs = fit.network.macs(order, layer.input_size, layer.geometry)
    if is_whole(line.forms):
        macs = layer.dense_macs
    watched = {"degeneracy": _degeneracy(fit)} if line.method == "cp" and len(fit.tensors) > 2 else {}
    return watched | {
        "method": line.method,
        "shape": line.shape,
        "rank": plain(ranks_of(layer, line)),
        "compressed": {"macs": macs, "parameters": fit.network.parameters},
        "reason": line.reason,
    }
