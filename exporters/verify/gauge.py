"""The errors of one step within the network, gathered piece by piece: the error that enters at each value, and the
error that has accumulated up to it.

``parts`` says how the error that enters is found: the version before runs the parts of its graph alone. A TFLite file
cannot run its parts, so the nearest version before the file that can takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .compare import Sums
from .links import Link, Named
from .names import Names, Values
from .parts import Parts
from .torch_version import TorchVersion
from .versions import OnnxVersion, Version


@dataclass(frozen=True)
class Part:
    """A layer, or the operators between two layers, in one step. ``layer`` is None where the part holds no layer.

    ``name`` is for readers, ``value`` is the part's result. Both errors are relative and in the mean square;
    ``entered`` is None where no version before can run the part alone.
    """

    name: str
    layer: str | None
    value: str
    entered: float | None
    accumulated: float


def judges(versions: Sequence[Named], found: Sequence[Link]) -> list[int | None]:
    """For each link the index of the version whose parts are run again: the parent, or the nearest version that the
    parent came from and that can run its parts; None where there is none.
    """
    parent = {link.child: link.parent for link in found}
    result: list[int | None] = []
    for link in found:
        at: int | None = link.parent
        while at is not None and not _can_redo(versions[at].version):
            at = parent.get(at)
        result.append(at)
    return result


def _can_redo(version: Version) -> bool:
    # A file with a batch of its own could only be run on that many images at once.
    return isinstance(version, TorchVersion) or (isinstance(version, OnnxVersion) and version.batch == 0)


class Gauge:
    """Gathers the errors of the step from ``parent`` to ``child``, of which ``judge`` runs the parts again."""

    def __init__(self, link: Link, judge: int | None, versions: Sequence[Named], names: Names) -> None:
        self._link, self._judge, self._names = link, judge, names
        self._version = None if judge is None else versions[judge].version
        self._redo: Parts | TorchVersion | None = None
        self._accumulated: dict[str, Sums] = {}
        self._entered: dict[str, Sums] = {}

    def add(self, x: np.ndarray, looks: Sequence[Values]) -> None:
        """Takes in one piece: the network's input, and the values that each version of the chain shows."""
        old, new = looks[self._link.parent], looks[self._link.child]
        if not self._accumulated:
            self._prepare(old, new, {} if self._judge is None else looks[self._judge])
        for name, sums in self._accumulated.items():
            sums.add(old[name], new[name])
        if self._redo is not None:
            again = self._redo.redo(x, {name: new[name] for name in self._entered})
            for name, sums in self._entered.items():
                if name in again:
                    sums.add(again[name], new[name])

    def _prepare(self, old: Values, new: Values, judge: Values) -> None:
        both = [name for name in old if name in new and name in self._names.values]
        common = [name for name in both if old[name].shape == new[name].shape]
        self._accumulated = {name: Sums() for name in common}
        shown = [name for name in common if name in judge and judge[name].shape == new[name].shape]
        if isinstance(self._version, TorchVersion):
            self._redo = self._version
        elif isinstance(self._version, OnnxVersion):
            self._redo = Parts(self._version.proto, shown)
            shown = list(self._redo.between)
        self._entered = {name: Sums() for name in shown}

    def parts(self) -> list[Part]:
        """The layers in the order of the reference, and what lies between them where it was run again."""
        found = []
        for name, sums in self._accumulated.items():
            entered = self._entered.get(name)
            known = entered.error if entered is not None and entered.pieces else None
            layer, title = self._name(name)
            if layer is not None or known is not None:
                found.append(Part(title, layer, name, known, sums.error))
        return found

    def _name(self, value: str) -> tuple[str | None, str]:
        """(the layer, what the part is called): the last layer in the part that makes the value."""
        if not isinstance(self._redo, Parts) or value not in self._redo.between:
            layer = self._names.layers.get(value)
            return layer, layer or value
        inside = [self._names.layers[name] for name in self._redo.between[value] if name in self._names.layers]
        layer = inside[0] if len(inside) == 1 else None
        return layer, " + ".join(inside) or f"{self._redo.operators[value]} {value}"
