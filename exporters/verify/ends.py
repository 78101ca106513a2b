"""The outputs of every version against those of the version that it came from, and against the first of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekron.errors import UserError

from .compare import AT_ONCE, Difference, common_shape, difference
from .links import QUANTIZATION, Link, Named


@dataclass(frozen=True)
class Ends:
    """One version's outputs: ``rows`` for every case and output, ``since`` the first version on the last case."""

    rows: Sequence[Difference]
    since: Sequence[Difference]


def check_ends(versions: Sequence[Named]) -> None:
    """Raises ``UserError`` for versions whose inputs or outputs do not match."""
    first = versions[0]
    for other in versions[1:]:
        try:
            common_shape(first.version, other.version)
        except UserError:
            shapes = list(first.version.input_shape), list(other.version.input_shape)
            raise UserError(
                f"{first.title} takes {shapes[0]} and {other.title} {shapes[1]}; give versions of one network, and "
                "one that knows the size of its input."
            ) from None
        counts = len(first.version.outputs), len(other.version.outputs)
        if counts[0] != counts[1]:
            raise UserError(
                f"{first.title} has {counts[0]} outputs and {other.title} {counts[1]}; give versions of one network."
            )


def compare_ends(
    versions: Sequence[Named], found: Sequence[Link], inputs: Sequence[tuple[str, np.ndarray]], *, images: bool
) -> list[Ends]:
    """One ``Ends`` for each link.

    With ``images`` the last of ``inputs`` is of real images, and the only case for a step to smaller types: what lies
    beyond the ranges that such a file was made for saturates. Raises ``UserError`` for outputs that do not match.
    """
    rows: list[list[Difference]] = [[] for _ in found]
    since: list[list[Difference]] = [[] for _ in found]
    for index, (case, x) in enumerate(inputs):
        last = index == len(inputs) - 1
        values = [_outputs(entry, x) for entry in versions]
        for i, link in enumerate(found):
            if last or not images or QUANTIZATION not in link.kinds:
                rows[i] += _differences(versions, link.parent, link.child, case, values)
            if last:
                since[i] += _differences(versions, 0, link.child, case, values)
    return [Ends(*pair) for pair in zip(rows, since, strict=True)]


def _outputs(entry: Named, x: np.ndarray) -> list[np.ndarray]:
    pieces = [entry.version.run(x[start : start + AT_ONCE]) for start in range(0, len(x), AT_ONCE)]
    return [np.concatenate([piece[name] for piece in pieces]) for name in entry.version.outputs]


def _differences(
    versions: Sequence[Named], parent: int, child: int, case: str, values: Sequence[Sequence[np.ndarray]]
) -> list[Difference]:
    rows = []
    for name, old, new in zip(versions[0].version.outputs, values[parent], values[child], strict=True):
        if old.shape != new.shape:
            raise UserError(
                f"output {name} has shape {list(old.shape)} in {versions[parent].title} and {list(new.shape)} in "
                f"{versions[child].title}; give versions of one network."
            )
        rows.append(difference(name, case, old, new))
    return rows
