"""Walks a chain: every version against the one that it came from, at the outputs and at every layer.

Outputs are compared on all cases (see ``ends``). Layers are compared on the main case, which is the real images where
there are some and else random ones, in pieces that fit in memory, by the relative error in the mean square. Each layer
has two errors:

    entered      the error that the layer itself adds: its output against the output that the layer of the version
                 before computes from the same input (see ``parts``). The layer with the largest one is where
                 something goes wrong.
    accumulated  the difference of its output from that of the version before: the error that entered at the layer and
                 at the layers before it, as far as they pass it on.

A layer that was fitted to make up for the errors before it deviates on purpose: more enters there, less accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from .compare import Difference, finite
from .ends import compare_ends
from .gauge import Gauge, Part, judges
from .inputs import main_case
from .links import Link, Named, links
from .names import Names

#: Bytes of the values of all versions that are in memory at once.
_ROOM = 256 << 20


@dataclass(frozen=True)
class Step:
    """A version against the one that it came from, both by title.

    ``outputs`` are of all cases, ``real`` of the main case, on which ``since`` compares with the first version of the
    chain. ``judge`` is the version whose layers were run again: the nearest before this one that can run them alone.
    In a chain of two, ``within`` has every value that both versions know by name, on the case on which it differs most.
    """

    title: str
    against: str
    link: Link
    outputs: Sequence[Difference]
    real: Sequence[Difference]
    since: Sequence[Difference]
    within: Sequence[Difference]
    parts: Sequence[Part]
    judge: str | None

    @property
    def worst(self) -> Part | None:
        """The part at which most of the error enters; None where none does, or none is known."""
        entered = [part for part in self.parts if part.entered]
        return max(entered, key=lambda part: part.entered or 0.0, default=None)

    def to_json(self) -> dict[str, object]:
        """Plain data; an infinite or unknown number is None."""
        return {
            "version": self.title,
            "against": self.against,
            "kinds": list(self.link.kinds),
            "judge": self.judge,
            "outputs": [row.to_json() for row in self.outputs],
            "since_reference": [row.to_json() for row in self.since],
            "worst": None if self.worst is None else _plain(self.worst),
            "parts": [_plain(part) for part in self.parts],
        }


@dataclass(frozen=True)
class VersionChain:
    """All steps; ``layers`` are the names of the layers in the order of the network.

    ``case`` is the main case, which is of real images where ``images`` is set.
    """

    versions: Sequence[Named]
    steps: Sequence[Step]
    layers: Sequence[str]
    case: str
    images: bool

    @property
    def pair(self) -> bool:
        """Whether the chain is one comparison, of a candidate with a reference."""
        return len(self.versions) == 2

    def to_json(self) -> dict[str, object]:
        """Plain data; an infinite or unknown number is None."""
        return {
            "versions": [
                {
                    "title": entry.title,
                    "kind": entry.version.kind,
                    "precision": entry.version.precision,
                    "identity": None if entry.version.identity is None else entry.version.identity.digest,
                }
                for entry in self.versions
            ],
            "case": self.case,
            "steps": [step.to_json() for step in self.steps],
        }


def walk(
    versions: Sequence[Named],
    inputs: Sequence[tuple[str, np.ndarray]],
    names: Names,
    *,
    images: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VersionChain:
    """Compares ``versions``, of which the first is the reference, on ``inputs`` [N, C, H, W] by case.

    With ``images`` the last of ``inputs`` is of real ones, and the main case; else the one of most images is.
    ``names`` says which values are looked at. Raises ``UserError`` when the versions are not of one network.
    """
    found = links(versions)
    main = main_case(inputs, images=images)
    case, x = inputs[main]
    ends = compare_ends(versions, found, inputs, main=main, images=images)
    at = judges(versions, found)
    gauges = [Gauge(link, judge, versions, names) for link, judge in zip(found, at, strict=True)]
    done = 0
    for piece, looks in _looks(versions, x):
        for gauge in gauges:
            gauge.add(piece, looks)
        done += len(piece)
        progress(done, len(x))
    steps = [
        Step(
            title=versions[link.child].title,
            against=versions[link.parent].title,
            link=link,
            outputs=end.rows,
            real=[row for row in end.rows if row.case == case],
            since=end.since,
            within=[replace(row, name=names.titles.get(name, name)) for name, row in end.within.items()],
            parts=gauge.parts(),
            judge=None if judge is None else versions[judge].title,
        )
        for link, end, gauge, judge in zip(found, ends, gauges, at, strict=True)
    ]
    return VersionChain(versions, steps, list(dict.fromkeys(names.layers.values())), case, images)


def _plain(part: Part) -> dict[str, object]:
    return asdict(part) | {"entered": finite(part.entered), "accumulated": finite(part.accumulated)}


def _looks(versions: Sequence[Named], x: np.ndarray) -> Iterator[tuple[np.ndarray, list[Mapping[str, np.ndarray]]]]:
    """Pieces of ``x`` with the values of every version; the first is one image and tells how many have room."""
    start, size = 0, 1
    while start < len(x):
        piece = x[start : start + size]
        looks = [entry.version.look(piece) for entry in versions]
        yield piece, looks
        start += len(piece)
        size = max(1, len(piece) * _ROOM // max(1, sum(value.nbytes for look in looks for value in look.values())))
