"""Checks the choices for single layers in the whole network.

A layer was measured between ordinary neighbours. In the network its neighbours are factorized as well, and a form may
cause or spare a change of layout at a neighbour. So the network is measured, dense and in variants of random values, in
one race for each runtime, and the fastest variant is taken:

    tuned          every layer in its chosen forms
    plain          every layer in its fastest forms of ``grouped`` and ``mix`` alone, which never leave the layout
    present        every layer in its present forms, if the chosen order is the present one

If no variant is faster than the dense network, all layers stay dense on that runtime: no tuned file is slower than the
dense export.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.algebra.lowering import default_forms
from edgekron.exporters.export import export

from . import cache
from .outcome import Conditions, Tuning, WholeNetwork
from .race import Race, pinned
from .results import Choice, Trial

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekron.graph import Hub
    from edgekron.processes import Progress

    from .subject import Subject

ROUNDS, TURN = 20, 0.05
_STAYING = frozenset(("grouped", "mix"))

Trials = dict[str, Trial | None]


def checked(
    tuning: Tuning,
    dense: Hub,
    subjects: Sequence[Subject],
    *,
    threads: int = 1,
    use_cache: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Tuning:
    """The tuning with the fastest variant of the whole network on each target; ``dense`` is the original network."""
    choices, measured = dict(tuning.choices), tuning.measured
    network: dict[str, WholeNetwork] = {}
    with pinned(threads):
        for number, (target, conditions) in enumerate(tuning.conditions.items()):
            progress("whole network", number, len(tuning.conditions))
            found = variants(tuning, choices, subjects, target)
            key = _key(conditions, dense, subjects, choices, found)
            whole = cache.read(key, WholeNetwork.from_json) if use_cache else None
            if whole is None:
                whole = _measure(dense, subjects, choices, found, target, threads)
                measured += 1
                cache.write(key, whole.to_json())
            network[target] = whole
            for subject in subjects:
                trial = found[whole.fastest][subject.name] if whole.fastest else None
                choice = choices[subject.name]
                choices[subject.name] = replace(choice, trials={**choice.trials, target: trial})
    progress("whole network", len(tuning.conditions), len(tuning.conditions))
    return replace(tuning, choices=choices, network=network, measured=measured)


def variants(
    tuning: Tuning, choices: Mapping[str, Choice], subjects: Sequence[Subject], target: str
) -> dict[str, Trials]:
    """By variant, the trial of each layer on ``target``, None for dense; a variant equal to one before is left out."""
    tuned: Trials = {name: choice.trials[target] for name, choice in choices.items()}
    plain, present = dict(tuned), dict(tuned)
    for subject in subjects:
        result, order = tuning.results[subject.name][target], choices[subject.name].order
        stages = subject.network.stages(subject.order, subject.geometry)
        had = tuple(subject.forms.get(target, default_forms(stages, target)))
        gains = [trial for trial in result.trials if trial.candidate.order == order and trial.real]
        plain[subject.name] = _fastest(trial for trial in gains if _STAYING.issuperset(trial.candidate.forms))
        present[subject.name] = _fastest(trial for trial in gains if trial.candidate.forms == had)
    found: dict[str, Trials] = {}
    for name, one in (("tuned", tuned), ("plain", plain), ("present", present)):
        if one not in found.values() and any(trial is not None for trial in one.values()):
            found[name] = one
    return found


def _fastest(trials: Iterable[Trial]) -> Trial | None:
    return max(trials, key=lambda trial: trial.ratio.value, default=None)


def _measure(
    dense: Hub,
    subjects: Sequence[Subject],
    choices: Mapping[str, Choice],
    found: Mapping[str, Trials],
    target: str,
    threads: int,
) -> WholeNetwork:
    with tempfile.TemporaryDirectory(prefix="edgekron-tune-") as folder:
        files = [Path(folder) / f"{index}.{target}" for index in range(len(found) + 1)]
        export(dense, files[0])
        for file, trials in zip(files[1:], found.values(), strict=True):
            export(_hub(dense, subjects, choices, trials, target), file)
        race = Race(files, threads=threads)
        try:
            race.run(2, range(len(files)), TURN)
            race.run(ROUNDS, range(len(files)), TURN)
            ratios = {name: race.ratio(0, index, ROUNDS) for index, name in enumerate(found, 1)}
            return WholeNetwork(race.seconds(0, ROUNDS), ratios)
        finally:
            race.close()


def _hub(dense: Hub, subjects: Sequence[Subject], choices: Mapping[str, Choice], trials: Trials, target: str) -> Hub:
    """The network with random factors in the layers that are not dense; values decide no time."""
    hub = dense.copy()
    for subject in subjects:
        trial, layer = trials[subject.name], dense.layer(subject.name)
        if trial is None or layer.kernel is None:
            continue
        one = subject.factorized(subject.name, float(layer.kernel.std()))
        made = replace(one, order=choices[subject.name].order, forms={target: trial.candidate.forms})
        hub.factorize(subject.name, made)
    return hub


def _key(
    conditions: Conditions,
    dense: Hub,
    subjects: Sequence[Subject],
    choices: Mapping[str, Choice],
    found: Mapping[str, Trials],
) -> cache.Key:
    nodes = [
        f"{node.op_type} {[_shape(value) for value in (*node.inputs, *node.outputs)]}" for node in dense.model.graph
    ]
    layers = {subject.name: [subject.key(), list(choices[subject.name].order)] for subject in subjects}
    forms = {
        name: {layer: list(trial.candidate.forms) for layer, trial in trials.items() if trial is not None}
        for name, trials in found.items()
    }
    version = metadata.version("edgekron")
    return {"machine": conditions.to_json(), "nodes": nodes, "layers": layers, "variants": forms, "edgekron": version}


def _shape(value: ir.Value | None) -> str:
    return "" if value is None else f"{value.name} {value.shape}"
