"""The survey: from a hub and ratios, or a rule for ranks, to a plan.

The survey is one walk through the network. The inputs of each layer give its moments, and the moments give the error of
every candidate. A probe replaces the layer alone by a candidate near the wanted ratio: it gives how much of an error in
this layer arrives at the network's output. The candidates that meet the ratios with the least total error at the output
become the plan. Without data, errors are those of the kernels, and every layer counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from edgekron.algebra.lowering import default_forms
from edgekron.errors import UserError
from edgekron.fitting.calibration import Sample, Walk
from edgekron.fitting.fit import Fitter, as_factorized, kernel_of
from edgekron.fitting.output_error import OutputError
from edgekron.fitting.units import Units, sample_in_units, units_of_kernel
from edgekron.graph import Factorized, Hub, Layer
from edgekron.graph.cost import cost
from edgekron.graph.factorized import TARGETS
from edgekron.graph.reasons import kinds_of
from edgekron.memory import give_back
from edgekron.processes import ALONE, Processes, Progress, silent

from .allocation import allocate, check_sizes
from .candidates import Candidate, ErrorBound, by_rule, candidates, dense_candidate, structures
from .plan import CompressionPlan, LayerPlan
from .ranks import RankRule

#: Calibration images on which a layer's weight in the allocation is measured.
PROBE_IMAGES = 256


@dataclass(frozen=True)
class PlanOptions:
    """How ranks are chosen: by a ``rule`` for each layer in place of ratios for the network, and to suit a runtime that
    computes ``fill`` output channels at a time: ranks are preferred that pad little of it.
    """

    rule: RankRule | ErrorBound | None = None
    fill: int = 1


#: Ranks by the ratios alone.
DEFAULTS = PlanOptions()


def make_plan(
    hub: Hub,
    *,
    model: str,
    ratios: Mapping[str, float],
    data: Sequence[np.ndarray] = (),
    method: str = "kronecker",
    options: PlanOptions = DEFAULTS,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> CompressionPlan:
    """Chooses a structure of the family ``method`` and its ranks for each layer, so that the network named ``model``
    has at least ``ratios`` fewer MACs or parameters, or the ranks of ``options.rule``.

    Raises ``UserError`` when the ratios cannot be reached, there is nothing to factorize, or the hub is compressed
    already.
    """
    layers = original_layers(hub)
    free = [layer for layer in layers if layer.frozen_reason is None]
    reasons = [layer.frozen_reason for layer in layers if layer.frozen_reason is not None]
    wanted = max(ratios.values(), default=1.0)
    check_sizes(layers, ratios)
    if not free and (wanted > 1 or options.rule is not None):
        raise UserError(f"{model} has nothing to factorize: {kinds_of(reasons) or 'no convolution or matrix product'}.")
    choices, weights = _surveyed(hub, free, data, method, options, wanted, processes, progress)
    frozen = [cost(layer) for layer in layers if layer.frozen_reason is not None]
    fixed = {"macs": sum(one.macs for one in frozen), "parameters": sum(one.parameters for one in frozen)}
    if options.rule is None:
        chosen = allocate(choices, weights, fixed, ratios, reasons)
    else:
        chosen = {name: candidates[-1] for name, candidates in choices.items()}
    lines = {layer.name: _line(layer, chosen, choices, method, options.rule) for layer in layers}
    return processes.agreed(
        CompressionPlan(model, lines),
        lambda ours: ours.to_toml().encode(),
        lambda told: CompressionPlan.from_toml(told.decode()),
    )


def _surveyed(
    hub: Hub,
    free: Sequence[Layer],
    data: Sequence[np.ndarray],
    method: str,
    options: PlanOptions,
    wanted: float,
    processes: Processes,
    progress: Progress,
) -> tuple[dict[str, list[Candidate]], dict[str, float]]:
    """The candidates of each layer, and the weight of an error in the layer for the error of the output."""
    choices: dict[str, list[Candidate]] = {}
    weights: dict[str, float] = {}
    if data:
        with Walk(hub, data, processes) as walk:
            at_output = OutputError(hub, walk, PROBE_IMAGES) if options.rule is None else None
            for index, layer in enumerate(free):
                progress("survey", index, len(free))
                walk.advance(layer)
                kernel = kernel_of(layer)
                taken, units = sample_in_units(layer, kernel, walk, walk, index)
                kernel = units.kernel(kernel)
                choices[layer.name] = _choices(layer, kernel, taken, method, options)
                if at_output is not None:
                    weights[layer.name] = _sensitivity(
                        hub, layer, kernel, taken, choices[layer.name], at_output, wanted, units
                    )
                # One layer's moments at a time: they can be larger than the network.
                del taken
                give_back()
    else:
        for index, layer in enumerate(free):
            progress("survey", index, len(free))
            kernel = kernel_of(layer)
            choices[layer.name] = _choices(layer, units_of_kernel(kernel).kernel(kernel), None, method, options)
            weights[layer.name] = 1.0
    progress("survey", len(free), len(free))
    return choices, weights


def _choices(layer: Layer, kernel: Tensor, taken: Sample | None, method: str, options: PlanOptions) -> list[Candidate]:
    """All candidates; with a rule, the dense candidate and the rule's choice, if the two differ."""
    if options.rule is None:
        return candidates(layer, kernel, taken, method, fill=options.fill)
    if isinstance(options.rule, ErrorBound):
        return options.rule.choices(candidates(layer, kernel, taken, method, fill=options.fill))
    found = [dense_candidate(layer), by_rule(layer, kernel, taken, method, options.rule)]
    return found if found[1].template is not None else found[:1]


def _sensitivity(
    hub: Hub,
    layer: Layer,
    kernel: Tensor,
    taken: Sample,
    options: Sequence[Candidate],
    at_output: OutputError,
    wanted: float,
    units: Units,
) -> float:
    """Relative squared error at the network's output for each unit of relative squared error in this layer."""
    found, error = _probe(layer, kernel, taken, options, wanted, units)
    probe = at_output.processes.agreed(
        found,
        lambda ours: b"" if ours is None else ours.to_bytes(),
        lambda told: Factorized.from_bytes(told) if told else None,
    )
    if probe is None:
        return 1.0
    trial = hub.copy()
    trial.factorize(layer.name, probe)
    return at_output(trial) / max(error, 1e-12)


def _probe(
    layer: Layer, kernel: Tensor, taken: Sample, options: Sequence[Candidate], wanted: float, units: Units
) -> tuple[Factorized | None, float]:
    """The layer as the candidate nearest to the ratio ``wanted``, with its error; None where none makes an error."""
    dense = options[0]
    compressed = [c for c in options if c.template is not None and c.error > 0]
    if not compressed:
        return None, 0.0
    probe = min(compressed, key=lambda c: abs(math.log(dense.macs / c.macs / wanted)))
    template = probe.template
    if template is None:
        raise AssertionError("filtered above")
    fit = Fitter(template, kernel, taken.moments).closed_form(*probe.ranks)
    bias = units.bias(taken.moments.bias(fit.kernel())).float().numpy()
    forms = {"onnx": ("expand",)} if probe.expanded else {}
    return as_factorized(layer, units.fit(fit), probe.order, forms, bias), fit.error


def _line(
    layer: Layer,
    chosen: Mapping[str, Candidate],
    choices: Mapping[str, Sequence[Candidate]],
    method: str,
    rule: RankRule | ErrorBound | None,
) -> LayerPlan:
    if layer.frozen_reason is not None:
        return LayerPlan(reason=layer.frozen_reason)
    candidate = chosen[layer.name]
    if candidate.template is None:
        if len(choices[layer.name]) > 1:
            return LayerPlan(reason="the budget is better spent on other layers")
        if next(structures(layer, method), None) is None:
            return LayerPlan(reason=f"there is no {method} structure of its kernel")
        if rule is not None:
            return LayerPlan(reason=f"no {method} structure that {rule.name} allows saves anything")
        return LayerPlan(reason=f"no {method} structure has fewer MACs")
    network = candidate.template.network(*candidate.ranks)
    if candidate.expanded:
        times = network.macs(candidate.order, layer.input_size, layer.geometry) / layer.dense_macs
        note = f"contracting the factors costs {times:.1f} times the dense MACs: expanded when the file is loaded"
        forms: dict[str, tuple[str, ...]] = dict.fromkeys(TARGETS, ("expand",))
    else:
        note = candidate.template.note
        stages = network.stages(candidate.order, layer.geometry)
        forms = {target: default_forms(stages, target) for target in TARGETS}
    shape = str(candidate.template)
    return LayerPlan(candidate.method, shape, candidate.ranks, candidate.order, forms, note)


def original_layers(hub: Hub) -> list[Layer]:
    """The layers of a hub that nobody has compressed yet; raises ``UserError`` for another."""
    layers = hub.layers()
    if any(layer.factorized for layer in layers):
        raise UserError("this network is compressed already; compress the original with other ratios or another plan.")
    return layers
