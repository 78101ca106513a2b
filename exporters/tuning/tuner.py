"""Tunes layers for runtimes: every kind of layer is measured once, or taken from the cache of earlier measurements."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.errors import UserError
from edgekron.exporters.export import export
from edgekron.runtimes.agent import environment

from . import cache
from .candidates import candidates
from .layer import measure_layer
from .outcome import Conditions, Tuning
from .race import Race, pinned
from .results import Result, choose
from .subject import Subject
from .surroundings import one_layer

if TYPE_CHECKING:
    from edgekron.processes import Progress

#: Names of runtimes, as users write them, and the formats of their files.
TARGETS = {"onnx": "onnx", "onnxruntime": "onnx", "litert": "tflite", "tflite": "tflite"}
DTYPE = "float32"


def targets_of(text: str) -> list[str]:
    """The targets of a list such as "onnx,litert", in the list's order and each once. Raises ``UserError``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        raise UserError(
            f"there is no runtime {', '.join(unknown) or repr(text)} to tune for; the runtimes are onnx and litert."
        )
    return list(dict.fromkeys(TARGETS[name] for name in names))


def tune(
    subjects: Sequence[Subject],
    targets: Sequence[str],
    *,
    threads: int = 1,
    use_cache: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Tuning:
    """Measures every layer on every target and chooses; without ``use_cache`` nothing is taken from the cache.

    Raises ``UserError`` for a number of threads below 1, and ``RuntimeFailure`` where a runtime is not installed.
    """
    if threads < 1:
        raise UserError(f"--threads {threads} must be at least 1.")
    conditions = {target: _conditions(target, threads) for target in targets}
    results: dict[str, dict[str, Result]] = {subject.name: {} for subject in subjects}
    known: dict[Path, Result] = {}
    measured = 0
    total = len(subjects) * len(targets)
    with pinned(threads):
        for number, (target, subject) in enumerate((t, s) for t in targets for s in subjects):
            progress("tune", number, total)
            key = _key(subject, target, conditions[target])
            path = cache.path_of(key)
            result = known.get(path) or (cache.read(key, Result.from_json) if use_cache else None)
            if result is None:
                result = measure_layer(subject, target, threads=threads)
                measured += 1
                cache.write(key, result.to_json())
            known[path] = result
            results[subject.name][target] = result
    progress("tune", total, total)
    choices = {subject.name: choose(results[subject.name], subject.order) for subject in subjects}
    return Tuning(conditions, results, choices, measured)


def _key(subject: Subject, target: str, conditions: Conditions) -> cache.Key:
    ways = sorted((list(way.order), list(way.forms)) for way in candidates(subject, target))
    version = metadata.version("edgekron")
    return {"machine": conditions.to_json(), "layer": subject.key(), "ways": ways, "edgekron": version}


def _conditions(target: str, threads: int) -> Conditions:
    """The runtime's description of itself while running the smallest file, and the processor."""
    smallest = FactorNetwork("f1 r1, r1 c1", {"f1": 4, "r1": 1, "c1": 4})
    subject = Subject("smallest", "linear", smallest, Geometry(), (1, 1), (1, 0))
    with TemporaryDirectory(prefix="edgekron-tune-") as name:
        file = Path(name) / f"smallest.{target}"
        export(one_layer(subject), file)
        race = Race([file], threads=threads)
        described = race.describe()
        race.close()
    facts = environment.describe()
    return Conditions(
        runtime=described["runtime"],
        version=described["version"],
        delegate=described["delegate"],
        threads=threads,
        clock="processor time of the thread" if threads == 1 else "wall",
        type=DTYPE,
        processor=facts.get("processor"),
        features=facts.get("features", []),
    )
