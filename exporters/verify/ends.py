"""The outputs of every version against those of the version that it came from, and against the first of the chain.

Of an output that is joined from parts (``edgekron.graph.parts``), such as boxes and scores, each part is compared too.
A version is run as users run it, in pieces that fit in memory. Of a chain of two, the values within are compared on
every case too: exporters keep the names of layers' outputs, so that most values are known to both by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgekron.errors import UserError
from edgekron.graph.parts import JoinedOutput

from .compare import Difference, Sums
from .inputs import check_cases
from .links import Link, Named
from .names import Values
from .versions import Version

#: Images whose values are all in memory at once: those of a detector take a hundred megabytes each.
_AT_ONCE = 4

#: What the exporter to ONNX appends to a layer's name for a value within the layer: LAYER.0.Conv.
_STAGE = re.compile(r"\.\d+\.[A-Z][A-Za-z]*$")


@dataclass(frozen=True)
class Ends:
    """One version against its parent: ``rows`` for every case, output and part of a joined output.

    In a chain of two ``within`` is for every value that both know by name, on the case on which it differs most.

    ``since`` compares the outputs with the first version of the chain, on the main case.
    """

    rows: list[Difference] = field(default_factory=list)
    since: list[Difference] = field(default_factory=list)
    within: dict[str, Difference] = field(default_factory=dict)


def compare(
    reference: Version, candidate: Version, inputs: Iterable[tuple[str, np.ndarray]], titles: Mapping[str, str]
) -> tuple[list[Difference], list[Difference]]:
    """(end to end: one row a case and output, or part of a joined output, by layer: one row a value).

    A value's row is of the case on which it differs most. ``titles`` maps values to the names that they have in the
    rows, such as a layer's output to the layer. Raises ``UserError`` when the inputs or outputs of the versions do not
    match, or an input does not fit them.
    """
    versions = [Named("the reference", reference), Named("the candidate", candidate)]
    (ends,) = compare_ends(versions, [Link(0, 1, ())], list(inputs), main=0, images=False)
    return ends.rows, [replace(row, name=titles.get(name, name)) for name, row in ends.within.items()]


def compare_ends(
    versions: Sequence[Named],
    found: Sequence[Link],
    inputs: Sequence[tuple[str, np.ndarray]],
    *,
    main: int,
    images: bool,
) -> list[Ends]:
    """One ``Ends`` for each link; ``main`` is the index of the main case among ``inputs``.

    With ``images`` the main case is of real images, and the only case for a version in int8, which saturates beyond
    the ranges that it was made for. Raises ``UserError`` when inputs or outputs do not match.
    """
    check_cases(versions, inputs)
    _check_outputs(versions)
    ends = [Ends() for _ in found]
    shared = _shared(*(entry.version for entry in versions)) if len(versions) == 2 else []
    for index, (case, x) in enumerate(inputs):
        fits = [not images or index == main or versions[link.child].version.precision != "int8" for link in found]
        wanted = {(link.parent, link.child) for link, fit in zip(found, fits, strict=True) if fit}
        if index == main:
            wanted |= {(0, link.child) for link in found}
        if not wanted:
            continue
        rows, within = _compare_case(versions, wanted, case, x, shared)
        for link, fit, end in zip(found, fits, ends, strict=True):
            if fit:
                end.rows.extend(rows[link.parent, link.child])
            if index == main:
                end.since.extend(rows[0, link.child])
            for name, row in within.items():
                if name not in end.within or row.relative > end.within[name].relative:
                    end.within[name] = row
    return ends


def _check_outputs(versions: Sequence[Named]) -> None:
    """Raises ``UserError`` for versions with another number of outputs than the first."""
    first, *others = versions
    for other in others:
        counts = len(first.version.outputs), len(other.version.outputs)
        if counts[0] != counts[1]:
            raise UserError(
                f"{first.title} has {counts[0]} outputs and {other.title} {counts[1]}; give versions of one network."
            )


def _shared(reference: Version, candidate: Version) -> list[str]:
    """The values of the reference that may be compared by name.

    Values between the factors of a layer are left out where the files are of two precisions: the scale between factors
    is free, and a quantized file has another one.
    """
    factorized = reference.identity is not None and bool(reference.identity.structure)
    if not factorized or reference.precision == candidate.precision:
        return reference.inner
    known = {*reference.outputs, *reference.inner}
    return [name for name in reference.inner if not _between_factors(name, known)]


def _between_factors(name: str, known: Collection[str]) -> bool:
    """Whether an exporter gave this name to a value within a factorized layer: LAYER.0.Conv in ONNX, VALUE/0 in TFLite
    beside the layer's own VALUE.
    """
    return _STAGE.search(name) is not None or ("/" in name and name.rpartition("/")[0] in known)


def _compare_case(
    versions: Sequence[Named],
    pairs: Collection[tuple[int, int]],
    case: str,
    x: np.ndarray,
    shared: Sequence[str],
) -> tuple[dict[tuple[int, int], list[Difference]], dict[str, Difference]]:
    """(for each pair of versions the rows of the outputs in order, the rows of the values ``shared`` that both show).

    Rows of outputs have the names of the first version. ``shared`` is for a chain of two.
    """
    outputs = versions[0].version.outputs
    joined = _joined(versions)
    ends = {pair: [_OutputSums(name, joined[i]) for i, name in enumerate(outputs)] for pair in pairs}
    within: dict[str, Sums] = {}
    used = {index for pair in pairs for index in pair}
    for start in range(0, len(x), _AT_ONCE):
        piece = x[start : start + _AT_ONCE]
        values = {index: _run(versions[index].version, piece, bool(shared)) for index in used}
        for (parent, child), sums in ends.items():
            _add_outputs(sums, versions, (parent, child), (values[parent], values[child]))
        for name in shared:
            old, new = values[0].get(name), values[1].get(name)
            if old is not None and new is not None and old.shape == new.shape:
                within.setdefault(name, Sums()).add(old, new)
    rows = {pair: [row for total in sums for row in total.rows(case)] for pair, sums in ends.items()}
    return rows, {name: sums.difference(name, case) for name, sums in within.items()}


class _OutputSums:
    """The sums of one output as a whole, and of its parts where the output is joined."""

    def __init__(self, name: str, joined: JoinedOutput | None) -> None:
        self._name, self._joined, self._whole = name, joined, Sums()
        self._parts = [Sums() for _ in joined.parts] if joined else []

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Takes in one piece; both arrays have one shape."""
        self._whole.add(reference, candidate)
        if self._joined is None:
            return
        old, new = self._joined.images(reference), self._joined.images(candidate)
        if old is None or new is None:
            return
        for part, sums in zip(self._joined.parts, self._parts, strict=True):
            # As vectors: a part is no list of scores, whatever its shape.
            sums.add(old[:, part.places].ravel(), new[:, part.places].ravel())

    def rows(self, case: str) -> Iterator[Difference]:
        """The output, and each part that was found in it."""
        yield self._whole.difference(self._name, case)
        for part, sums in zip(self._joined.parts if self._joined else (), self._parts, strict=True):
            if sums.pieces:
                yield sums.difference(f"{self._name}: {part.title}", case, part.title)


def _joined(versions: Sequence[Named]) -> list[JoinedOutput | None]:
    """What each output is joined from, None for one that is not, as the first version tells that knows of any."""
    for entry in versions:
        if entry.version.joined:
            return [entry.version.joined.get(name) for name in entry.version.outputs]
    return [None] * len(versions[0].version.outputs)


def _run(version: Version, x: np.ndarray, look: bool) -> Values:
    """The outputs as users compute them; to ``look`` the values within too, as each follows from those before it."""
    return {**version.look(x), **version.run(x)} if look else version.run(x)


def _add_outputs(
    sums: Sequence[_OutputSums], versions: Sequence[Named], pair: tuple[int, int], values: tuple[Values, Values]
) -> None:
    parent, child = (versions[index] for index in pair)
    for total, name, old, new in zip(
        sums, versions[0].version.outputs, parent.version.outputs, child.version.outputs, strict=True
    ):
        a, b = values[0][old], values[1][new]
        if a.shape != b.shape:
            raise UserError(
                f"output {name} has shape {list(a.shape)} in {parent.title} and {list(b.shape)} in {child.title}; give "
                "versions of one network."
            )
        total.add(a, b)
