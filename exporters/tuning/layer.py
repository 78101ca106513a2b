"""Measures one layer: all candidates and the dense layer, each as a file in the layer's surroundings, in one race.

First come a few rounds of all files, then the *final*: many rounds of the dense layer, of the fastest candidates, and
of the fastest candidate of each other order that is not far behind. A candidate's interval comes from the final alone,
so that luck in the first rounds does not count. Before any time counts, the output of every file is compared with the
dense layer's.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError
from edgekron.exporters.export import ExportSettings, export

from .candidates import FormCandidate, candidates
from .race import Race
from .results import DENSE, Result, Trial
from .surroundings import LAYER, one_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .subject import Subject

#: Rounds of all files, and rounds of the final.
HEATS, FINAL = 4, 16
_FINALISTS = 3
#: The best candidate of another order enters the final if it has at least this share of the highest ratio.
_NOT_FAR = 0.8
#: Largest difference from the dense layer, relative to its largest value: float32 sums in another order.
_SAME = 1e-3


def measure_layer(subject: Subject, target: str, *, threads: int) -> Result:
    """Times of the dense layer and of every candidate on the runtime of ``target``.

    Raises ``UserError`` for a candidate whose output is wrong, and ``RuntimeFailure`` where there is no runtime.
    """
    ways = candidates(subject, target)
    with tempfile.TemporaryDirectory(prefix="edgekron-tune-") as name:
        files = [Path(name) / f"{index}.{target}" for index in range(len(ways) + 1)]
        export(one_layer(subject), files[0], ExportSettings(forms={LAYER: DENSE}))
        for way, file in zip(ways, files[1:], strict=True):
            reordered = replace(subject, order=way.order, forms={})
            export(one_layer(reordered), file, ExportSettings(forms={LAYER: way.forms}))
        race = Race(files, threads=threads)
        try:
            _check(subject, target, ways, race.outputs())
            race.run(HEATS, range(len(files)))
            heats = [_trial(race, way, index, HEATS) for index, way in enumerate(ways, 1)]
            final = finalists([(trial.candidate.order, trial.ratio.value) for trial in heats])
            race.run(FINAL, [0, *(index + 1 for index in final)])
            trials = [
                _trial(race, way, index + 1, FINAL) if index in final else heats[index]
                for index, way in enumerate(ways)
            ]
            return Result(race.seconds(0, FINAL), tuple(trials))
        finally:
            race.close()


def finalists(heats: Sequence[tuple[tuple[int, ...], float]]) -> list[int]:
    """Indices of the candidates, given as (order, ratio), that enter the final."""
    ranked = sorted(range(len(heats)), key=lambda i: -heats[i][1])
    chosen = ranked[:_FINALISTS]
    orders = {heats[i][0] for i in chosen}
    for i in ranked[_FINALISTS:]:
        order, ratio = heats[i]
        if order not in orders and ratio >= _NOT_FAR * heats[ranked[0]][1]:
            chosen.append(i)
            orders.add(order)
    return chosen


def _trial(race: Race, way: FormCandidate, index: int, rounds: int) -> Trial:
    return Trial(way, race.seconds(index, rounds), race.ratio(0, index, rounds), rounds)


def _check(subject: Subject, target: str, ways: Sequence[FormCandidate], outputs: Sequence[np.ndarray]) -> None:
    reference = outputs[0]
    allowed = _SAME * float(np.abs(reference).max())
    for way, output in zip(ways, outputs[1:], strict=True):
        worst = float(np.abs(output - reference).max())
        if not worst <= allowed:
            raise UserError(
                f"layer {subject.name} in the forms {way} of order {list(way.order)} differs by {worst:.2g} from the "
                f"dense layer in the runtime of {target} files; this runtime computes it wrongly: use another version"
            )
