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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekron.errors import UserError

from .versions import Version, open_version

__all__ = ["Difference", "Version", "cases", "compare", "difference", "open_version"]


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
    if reference.shape != candidate.shape:
        raise UserError(
            f"{name} has shape {list(reference.shape)} in the reference and {list(candidate.shape)} in the candidate; "
            "are these the same network?"
        )
    r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    gap = r - c
    top, energy, noise = float(np.abs(r).max(initial=0.0)), float(r @ r), float(gap @ gap)
    worst = float(np.abs(gap).max(initial=0.0))
    norms = math.sqrt(energy) * float(np.linalg.norm(c))
    return Difference(
        name,
        case,
        max_abs=worst,
        # A NaN or an infinite value is no small difference, whatever a maximum makes of it.
        relative=math.inf if not math.isfinite(noise) else worst / top if top else (0.0 if not worst else math.inf),
        sqnr_db=10 * math.log10(energy / noise) if noise and energy else (math.inf if not noise else -math.inf),
        cosine=float(r @ c) / norms if norms else float(energy == float(c @ c)),
        agreement=_agreement(reference, candidate),
    )


def _agreement(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    if reference.ndim != 2 or reference.shape[1] < 2:
        return None
    return float(np.mean(reference.argmax(axis=1) == candidate.argmax(axis=1)))


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


def compare(
    reference: Version, candidate: Version, inputs: Iterable[tuple[str, np.ndarray]], names: Mapping[str, str]
) -> tuple[list[Difference], list[Difference]]:
    """(end to end: one row a case and output, by layer: one row a value, on the case where it differs most).

    ``names`` maps values to what they are called in the rows, such as a layer's output to the layer. Raises
    ``UserError`` when the versions' inputs or outputs do not match, or an input does not fit them.
    """
    shape = common_shape(reference, candidate)
    if len(reference.outputs) != len(candidate.outputs):
        counts = len(reference.outputs), len(candidate.outputs)
        raise UserError(f"the reference has {counts[0]} outputs and the candidate {counts[1]}; they must match.")
    ends: list[Difference] = []
    layers: dict[str, Difference] = {}
    for case, x in inputs:
        if x.shape[1:] != shape:
            raise UserError(f"the images are {list(x.shape[1:])}; the network takes {list(shape)}.")
        old, new = reference.run(x), candidate.run(x)
        ends += [difference(a, case, old[a], new[b]) for a, b in zip(reference.outputs, candidate.outputs, strict=True)]
        common = [n for n in reference.inner if n in old and n in new and old[n].shape == new[n].shape]
        for name in common:
            row = difference(names.get(name, name), case, old[name], new[name])
            if name not in layers or row.relative > layers[name].relative:
                layers[name] = row
    return ends, list(layers.values())
