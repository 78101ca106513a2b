"""Walks a chain: every version against the one that it came from, at the outputs and at every layer.

Outputs are compared on all cases, as ``exporters.verify`` does. Layers are compared on the real images where there are
some, else on random ones, in pieces that fit in memory, by the relative error in the mean square (see ``sums``). Each
has two errors:

    entered      the error that the layer itself adds: its output against what the layer of the version before makes of
                 the same input (see ``parts``). This is what to look at: the largest one is where something goes wrong.
    accumulated  the difference of its output from that of the version before: what entered there and in the layers
                 before it, as far as they pass it on.

A layer that was fitted to make up for the errors before it deviates on purpose: more enters there, less accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .compare import Difference
from .ends import check_ends, compare_ends
from .gauge import Gauge, Names, Part, judges
from .links import Link, Named, links

#: Bytes of the values of all versions that are in memory at once.
_ROOM = 256 << 20


@dataclass(frozen=True)
class Step:
    """A version against the one it came from, both by title.

    ``outputs`` are of all cases, ``real`` of the case for layers, on which ``since`` compares with the first version of
    the chain. ``judge`` is the version whose layers were run again: the nearest before this one that can run them
    alone.
    """

    title: str
    against: str
    link: Link
    outputs: Sequence[Difference]
    real: Sequence[Difference]
    since: Sequence[Difference]
    parts: Sequence[Part]
    judge: str | None

    @property
    def worst(self) -> Part | None:
        """The part at which most of the error enters; None where none does, or none is known."""
        entered = [part for part in self.parts if part.entered]
        return max(entered, key=lambda part: part.entered or 0.0, default=None)


@dataclass(frozen=True)
class Chain:
    """All steps; ``layers`` are the names of the layers in the order of the network.

    ``case`` is what the layers ran on, which are real images where ``images`` is set.
    """

    versions: Sequence[Named]
    steps: Sequence[Step]
    layers: Sequence[str]
    case: str
    images: bool


def walk(
    versions: Sequence[Named],
    inputs: Sequence[tuple[str, np.ndarray]],
    names: Names,
    *,
    images: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Chain:
    """Compares ``versions``, of which the first is the reference, on ``inputs`` [N, C, H, W] by case.

    The last of ``inputs`` is the case for layers; with ``images`` it is of real ones. ``names`` says which values are
    looked at. Raises ``UserError`` when the versions are not of one network.
    """
    check_ends(versions)
    found = links(versions)
    ends = compare_ends(versions, found, inputs, images=images)
    at = judges(versions, found)
    gauges = [Gauge(link, judge, versions, names) for link, judge in zip(found, at, strict=True)]
    case, x = inputs[-1]
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
            parts=gauge.parts(),
            judge=None if judge is None else versions[judge].title,
        )
        for link, end, gauge, judge in zip(found, ends, gauges, at, strict=True)
    ]
    return Chain(versions, steps, list(dict.fromkeys(names.layers.values())), case, images)


def _looks(versions: Sequence[Named], x: np.ndarray) -> Iterator[tuple[np.ndarray, list[Mapping[str, np.ndarray]]]]:
    """Pieces of ``x`` with the values of every version; the first is one image and tells how many have room."""
    start, size = 0, 1
    while start < len(x):
        piece = x[start : start + size]
        looks = [entry.version.look(piece) for entry in versions]
        yield piece, looks
        start += len(piece)
        size = max(1, len(piece) * _ROOM // max(1, sum(value.nbytes for look in looks for value in look.values())))
