"""From a tuning to the plan and the hub that have its choices.

A layer that gains on none of the runtimes is left dense, with its *original* kernel: multiplying factors out again
would keep their error and save nothing. If a layer gains on one runtime and not on another, the other runtime runs the
product of the factors, so that the files of all runtimes stay the same network and can be checked against each other.
Tune for one runtime alone to have dense layers exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgekron.algebra.lowering import default_forms
from edgekron.compression.compressor import Compression
from edgekron.compression.report import LayerReport
from edgekron.graph.cost import cost
from edgekron.planning.plan import CompressionPlan, LayerPlan

from .results import Choice, Result, Trial

if TYPE_CHECKING:
    from edgekron.graph import Hub

    from .outcome import Conditions, Tuning
    from .subject import Subject


def tuned_plan(plan: CompressionPlan, tuning: Tuning, subjects: list[Subject]) -> CompressionPlan:
    """The plan with the chosen orders and forms, and the measurements behind each choice in words."""
    lines = dict(plan.layers)
    for subject in subjects:
        lines[subject.name] = _line(lines[subject.name], subject, tuning)
    return CompressionPlan(plan.model, lines)


def tuned_compression(old: Compression, tuning: Tuning, subjects: list[Subject], original: Hub | None) -> Compression:
    """A finished compression with the choices of a tuning; no factors are fitted again.

    Layers that gain nothing get the kernels of the ``original`` network. Without ``original`` these layers keep their
    factors, and files hold the product of the factors.
    """
    hub = old.hub.copy()
    plan = tuned_plan(old.plan, tuning, subjects)
    rows = dict(old.report.layers)
    for subject in subjects:
        name, choice = subject.name, tuning.choices[subject.name]
        if choice.dense and original is not None:
            hub.restore(name, original.layer(name))
            rows[name] = LayerReport(rows[name].kernel, rows[name].dense, reason=plan.layers[name].reason)
            continue
        forms = _forms(subject, choice)
        layer = hub.layer(name)
        if layer.factorized is None:
            raise AssertionError(f"{name} was tuned, so it is factorized")
        hub.factorize(name, replace(layer.factorized, order=choice.order, forms=forms))
        if choice.dense:
            line = old.plan.layers[name]
            measured = plan.layers[name].measured
            plan = CompressionPlan(
                plan.model, {**plan.layers, name: replace(line, order=choice.order, forms=forms, measured=measured)}
            )
        rows[name] = replace(rows[name], compressed=cost(hub.layer(name)))
    report = replace(old.report, layers=rows, tuning=tuning.to_json(), identity=hub.identity.digest)
    return Compression(hub, plan, report)


def _line(line: LayerPlan, subject: Subject, tuning: Tuning) -> LayerPlan:
    choice = tuning.choices[subject.name]
    measured = {
        target: _sentence(result, choice, target, tuning.conditions[target])
        for target, result in tuning.results[subject.name].items()
    }
    if choice.dense:
        return LayerPlan(reason=f"{line.method} of {line.shape} is not faster than dense", measured=measured)
    return replace(line, order=choice.order, forms=_forms(subject, choice), measured=measured)


def _forms(subject: Subject, choice: Choice) -> dict[str, tuple[str, ...]]:
    """The chosen forms; for a target that was not measured, the present forms, or the defaults of a new order."""
    stages = subject.network.stages(choice.order, subject.geometry)
    if choice.order == subject.order:
        others = dict(subject.forms)
    else:
        others = {target: default_forms(stages, target) for target in subject.forms}
    return others | choice.forms


def _sentence(result: Result, choice: Choice, target: str, conditions: Conditions) -> str:
    trial = choice.trials[target]
    where = f"{conditions.runtime} {conditions.version}, {conditions.type}, threads: {conditions.threads}"
    where += f", {conditions.processor}"
    if trial is not None:
        return f"{1e3 * trial.seconds:.3g} ms, {_times(trial)}, {where}"
    best = result.finalists[0]
    return f"dense in {1e3 * result.dense_seconds:.3g} ms; {best.candidate} is {_times(best)}, {where}"


def _times(trial: Trial) -> str:
    ratio = trial.ratio
    return f"{ratio.value:.2f} times as fast as dense [{ratio.low:.2f}, {ratio.high:.2f}]"
