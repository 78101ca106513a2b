"""The whole network checks what was chosen layer by layer.

A layer was measured between ordinary neighbours; in the network its neighbours are factorized as well, and a form may
cost or spare them a change of layout. So the network is measured, dense and in variants of random values, in one race
for each runtime, and the fastest variant is taken:

    tuned          every layer as it was chosen
    plain          every layer in its fastest forms of ``grouped`` and ``mix`` alone, which never leave the layout
    present        every layer in the forms it had before, where its order is still the same

If none is faster than the dense network, all layers stay dense on that runtime: no tuned file is slower than its dense
export.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekron.algebra.lowering import default_forms
from edgekron.runtimes.statistics import Interval

from . import cache
from .layer import export
from .race import Race, pinned
from .results import Choice, Result, Trial

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekron.graph import Hub

    from .subject import Subject
    from .tuner import Tuning

ROUNDS, TURN = 20, 0.05
_STAYING = frozenset(("grouped", "mix"))

Trials = dict[str, Trial | None]


@dataclass(frozen=True)
class Whole:
    """Seconds of the dense network, and how many times faster each variant is."""

    seconds: float
    ratios: Mapping[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        ratios = {name: {"ratio": one.value, "interval": [one.low, one.high]} for name, one in self.ratios.items()}
        return {"dense_ms": 1e3 * self.seconds, "variants": ratios}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Whole:
        """The inverse of ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        ratios = {}
        for name, one in data["variants"].items():
            low, high = one["interval"]
            ratios[name] = Interval(float(one["ratio"]), float(low), float(high))
        return cls(float(data["dense_ms"]) / 1e3, ratios)


def checked(
    tuning: Tuning,
    dense: Hub,
    subjects: Sequence[Subject],
    *,
    threads: int = 1,
    use_cache: bool = True,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Tuning:
    """The tuning with, on each target, the variant that is fastest in the whole network; ``dense`` is the original."""
    choices, evidence, measured = dict(tuning.choices), {}, tuning.measured
    with pinned(threads):
        for number, (target, machine) in enumerate(tuning.machine.items()):
            progress("whole network", number, len(tuning.machine))
            found = variants(tuning, choices, subjects, target)
            key = _key(machine, dense, subjects, choices, found)
            result = cache.read(key, Whole.from_json) if use_cache else None
            if result is None:
                result = _measure(dense, subjects, choices, found, target, threads)
                measured += 1
                cache.write(key, result.to_json())
            name = fastest(result.ratios)
            evidence[target] = {"chosen": name or "dense", **result.to_json()}
            for subject in subjects:
                trial = found[name][subject.name] if name else None
                choice = choices[subject.name]
                choices[subject.name] = replace(choice, trials={**choice.trials, target: trial})
    progress("whole network", len(tuning.machine), len(tuning.machine))
    return replace(tuning, choices=choices, network=evidence, measured=measured)


def fastest(ratios: Mapping[str, Interval]) -> str | None:
    """The variant to take: the first, unless another is faster beyond doubt; None where none beats the dense network.

    Beyond doubt is: its interval lies above the estimate of the one it replaces, and above 1.
    """
    best: str | None = None
    for name, one in ratios.items():
        if one.low > 1.0 and (best is None or one.low > ratios[best].value):
            best = name
    return best


def variants(
    tuning: Tuning, choices: Mapping[str, Choice], subjects: Sequence[Subject], target: str
) -> dict[str, Trials]:
    """What each layer runs on ``target`` in every variant that differs from those before it; None for dense."""
    tuned: Trials = {name: choice.trials[target] for name, choice in choices.items()}
    plain, present = dict(tuned), dict(tuned)
    for subject in subjects:
        result, order = tuning.results[subject.name][target], choices[subject.name].order
        stages = subject.network.stages(subject.order, subject.geometry)
        had = tuple(subject.forms.get(target, default_forms(stages, target)))
        plain[subject.name] = _first(result, order, lambda forms: set(forms) <= _STAYING)
        present[subject.name] = _first(result, order, lambda forms, had=had: forms == had)  # type: ignore[misc]
    found: dict[str, Trials] = {}
    for name, one in (("tuned", tuned), ("plain", plain), ("present", present)):
        if one not in found.values() and any(trial is not None for trial in one.values()):
            found[name] = one
    return found


def _first(result: Result, order: tuple[int, ...], wanted: Callable[[tuple[str, ...]], bool]) -> Trial | None:
    fitting = [t for t in result.trials if t.candidate.order == order and wanted(t.candidate.forms) and t.real]
    return max(fitting, key=lambda trial: trial.ratio.value, default=None)


def _measure(
    dense: Hub,
    subjects: Sequence[Subject],
    choices: Mapping[str, Choice],
    found: Mapping[str, Trials],
    target: str,
    threads: int,
) -> Whole:
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
            return Whole(race.seconds(0, ROUNDS), ratios)
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
        forms: dict[str, Any] = {target: trial.candidate.forms}
        hub.factorize(subject.name, replace(one, order=choices[subject.name].order, forms=forms))
    return hub


def _key(
    machine: Mapping[str, Any],
    dense: Hub,
    subjects: Sequence[Subject],
    choices: Mapping[str, Choice],
    found: Mapping[str, Trials],
) -> dict[str, Any]:
    nodes = [
        f"{node.op_type} {[_shape(value) for value in (*node.inputs, *node.outputs)]}" for node in dense.model.graph
    ]
    layers = {subject.name: [subject.key(), list(choices[subject.name].order)] for subject in subjects}
    forms = {
        name: {layer: list(trial.candidate.forms) for layer, trial in trials.items() if trial is not None}
        for name, trials in found.items()
    }
    version = metadata.version("edgekron")
    return {"machine": dict(machine), "nodes": nodes, "layers": layers, "variants": forms, "edgekron": version}


def _shape(value: ir.Value | None) -> str:
    return "" if value is None else f"{value.name} {value.shape}"
