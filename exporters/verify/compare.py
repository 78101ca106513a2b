"""Compares two versions of a network element by element, end to end and at every value that both know by name.

A version is a hub (run in ONNX Runtime by its model-local functions), an ``.onnx`` file or a ``.tflite`` file.
Exporters keep the names of layers' outputs, so most layers can be compared wherever the error came in. For a
reference r and a candidate c,

    max abs = max |r - c|     relative = max abs / max |r|     SQNR = 10 log10(sum r^2 / sum (r - c)^2) dB
    cosine = <r, c> / (|r| |c|)     agreement = the fraction of images whose highest score is of the same class

A file with integer activations is exact to a 256th of the ranges that it was calibrated on, and saturates beyond
them: no bound on its largest error is meaningful, and what lies outside the data it was made for is not judged. It is
judged by SQNR and agreement, on real images. A ``Version`` says what it stores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgekron.errors import UserError

from .versions import Version, open_version

#: Images whose values are all in memory at once: those of a detector take a hundred megabytes each.
AT_ONCE = 4

__all__ = ["Difference", "Version", "cases", "compare", "difference", "open_version"]


_STAGE = re.compile(r"\.\d+\.[A-Z][A-Za-z]*$")


@dataclass(frozen=True)
class Difference:
    """How far the candidate's value ``name`` is from the reference's, over all inputs of one ``case``.

    ``agreement`` is None for what is no list of scores [N, classes].
    """

    name: str
    case: str
    max_abs: float
    relative: float
    sqnr_db: float
    cosine: float
    agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; an infinite SQNR (no difference at all) is None."""
        data = asdict(self)
        data["sqnr_db"] = self.sqnr_db if math.isfinite(self.sqnr_db) else None
        return data


def difference(name: str, case: str, reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """The measures for two arrays of one shape. Raises ``UserError`` when the shapes differ."""
    sums = _Sums()
    sums.add(name, reference, candidate)
    return sums.difference(name, case)


class _Sums:
    """What the measures are made of, added up over pieces of a case, so that a case need never be in memory whole."""

    def __init__(self) -> None:
        self.worst = self.top = self.energy = self.other = self.noise = self.shared = 0.0
        self.same = self.images = 0
        self.scores = True

    def add(self, name: str, reference: np.ndarray, candidate: np.ndarray) -> None:
        """One more piece of the value ``name``. Raises ``UserError`` when the shapes differ."""
        if reference.shape != candidate.shape:
            raise UserError(
                f"{name} has shape {list(reference.shape)} in the reference and {list(candidate.shape)} in the "
                "candidate; are these the same network?"
            )
        r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        gap = r - c
        # Unlike Python's, numpy's maximum keeps a NaN.
        self.worst = float(np.maximum(self.worst, np.abs(gap).max(initial=0.0)))
        self.top = float(np.maximum(self.top, np.abs(r).max(initial=0.0)))
        self.energy += float(r @ r)
        self.other += float(c @ c)
        self.noise += float(gap @ gap)
        self.shared += float(r @ c)
        self.scores &= reference.ndim == 2 and reference.shape[1] > 1
        if self.scores:
            self.same += int(np.sum(reference.argmax(axis=1) == candidate.argmax(axis=1)))
            self.images += len(reference)

    def difference(self, name: str, case: str) -> Difference:
        """The measures over all pieces."""
        worst, top, energy, noise = self.worst, self.top, self.energy, self.noise
        norms = math.sqrt(energy) * math.sqrt(self.other)
        return Difference(
            name,
            case,
            max_abs=worst,
            # A NaN or an infinite value is no small difference, whatever a maximum makes of it.
            relative=math.inf if not math.isfinite(noise) else worst / top if top else (0.0 if not worst else math.inf),
            sqnr_db=10 * math.log10(energy / noise) if noise and energy else (math.inf if not noise else -math.inf),
            cosine=self.shared / norms if norms else float(energy == self.other),
            agreement=self.same / self.images if self.scores and self.images else None,
        )


def cases(shape: Sequence[int], images: np.ndarray | None, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Named inputs [N, *shape]: batches of 1, 2 and 3 random images, extreme ones, and real images where given."""
    rng = np.random.default_rng(seed)
    for batch in (1, 2, 3):
        yield f"random, batch {batch}", rng.standard_normal((batch, *shape)).astype(np.float32)
    yield "zeros", np.zeros((1, *shape), np.float32)
    yield "large (x100)", (100 * rng.standard_normal((1, *shape))).astype(np.float32)
    impulse = np.zeros((1, *shape), np.float32)
    impulse[(0, *(n // 2 for n in shape))] = 1.0
    yield "impulse", impulse
    if images is not None:
        yield f"{len(images)} images", images


def common_shape(reference: Version, candidate: Version) -> tuple[int, ...]:
    """The input [C, H, W] that both take: a size that one leaves open is the other's.

    Raises ``UserError`` when they differ, or both leave one open.
    """
    pair = reference.input_shape, candidate.input_shape
    if len(pair[0]) != len(pair[1]) or any(a and b and a != b for a, b in zip(*pair, strict=True)):
        raise UserError(
            f"the reference takes {list(pair[0])} and the candidate {list(pair[1])}; are these the same network?"
        )
    shape = tuple(a or b for a, b in zip(*pair, strict=True))
    if not all(n > 0 for n in shape):
        raise UserError(
            "the size of the input is open in both files; compare with the folder that compress wrote, which knows one."
        )
    return shape


def _between_factors(name: str, known: Sequence[str]) -> bool:
    """Whether an exporter gave this name to a value within a factorized layer: LAYER.0.Conv in ONNX, VALUE/0 in TFLite
    beside the layer's own VALUE.
    """
    return _STAGE.search(name) is not None or ("/" in name and name.rpartition("/")[0] in known)


def compare(
    reference: Version, candidate: Version, inputs: Iterable[tuple[str, np.ndarray]], names: Mapping[str, str]
) -> tuple[list[Difference], list[Difference]]:
    """(end to end: one row a case and output, by layer: one row a value, on the case where it differs most).

    ``names`` maps values to what they are called in the rows, such as a layer's output to the layer. Values between the
    factors of a layer are left out where the files are of two precisions: the scale between factors is free, and a
    quantized file has another one. Raises ``UserError`` when the versions' inputs or outputs do not match, or an input
    does not fit them.
    """
    shape = common_shape(reference, candidate)
    if len(reference.outputs) != len(candidate.outputs):
        counts = len(reference.outputs), len(candidate.outputs)
        raise UserError(f"the reference has {counts[0]} outputs and the candidate {counts[1]}; they must match.")
    factorized = reference.identity is not None and bool(reference.identity.structure)
    rescaled = factorized and reference.precision != candidate.precision
    inner = [n for n in reference.inner if not (rescaled and _between_factors(n, reference.outputs + reference.inner))]
    ends: list[Difference] = []
    layers: dict[str, Difference] = {}
    for case, x in inputs:
        if x.shape[1:] != shape:
            raise UserError(f"the images are {list(x.shape[1:])}; the network takes {list(shape)}.")
        rows, values = _compare_case(reference, candidate, case, x, inner)
        ends += rows
        for name, row in values.items():
            if name not in layers or row.relative > layers[name].relative:
                layers[name] = row
    return ends, [replace(row, name=names.get(name, name)) for name, row in layers.items()]


def _compare_case(
    reference: Version, candidate: Version, case: str, x: np.ndarray, names: Sequence[str]
) -> tuple[list[Difference], dict[str, Difference]]:
    """The rows of one case, those of the outputs in order and those of the inner values ``names`` that both show."""
    ends = [_Sums() for _ in reference.outputs]
    inner: dict[str, _Sums] = {}
    for start in range(0, len(x), AT_ONCE):
        piece = x[start : start + AT_ONCE]
        # The outputs as users compute them, the values within as each follows from those before it.
        old, new = ({**version.look(piece), **version.run(piece)} for version in (reference, candidate))
        for sums, a, b in zip(ends, reference.outputs, candidate.outputs, strict=True):
            sums.add(a, old[a], new[b])
        for name in names:
            if name in old and name in new and old[name].shape == new[name].shape:
                inner.setdefault(name, _Sums()).add(name, old[name], new[name])
    return (
        [sums.difference(name, case) for sums, name in zip(ends, reference.outputs, strict=True)],
        {name: sums.difference(name, case) for name, sums in inner.items()},
    )
