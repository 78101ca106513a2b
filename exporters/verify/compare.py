"""How far two arrays are apart: the measures by which versions of a network are compared.

For a reference r and a candidate c,

    max abs = max |r - c|     relative = max abs / max |r|     SQNR = 10 log10(sum r^2 / sum (r - c)^2) dB
    cosine = <r, c> / (|r| |c|)     agreement = the fraction of images whose highest score is of the same class
    error = |r - c| / |r|, the relative error in the mean square

A value is *lost* where the reference varies and the candidate is one number, as scores are that share a range with
hundreds of pixels. A part of a joined output is lost at an SQNR below ``LOST`` too.

All come from sums in float64 that are added up over pieces, so that no value of a network need be in memory whole.

A file with integer activations is exact to a 256th of the ranges that it was calibrated on, and saturates beyond
them: no bound on its largest error is meaningful, and its outputs for other data than it was made for are not judged.
Such a file is judged by SQNR and agreement, on real images.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from edgekron.errors import UserError

#: Values that differ by no more than this, relative to the largest, are one number but for rounding.
_ROUNDING = 1e-6
#: The SQNR in dB below which a part of an output is lost: the error has half the energy of the part.
LOST = 3.0


@dataclass(frozen=True)
class Difference:
    """How far the candidate's value ``name`` is from the reference's, over all inputs of one ``case``.

    ``agreement`` is None for a value that is no list of scores [N, classes]. ``part`` is the title of a part of a
    joined output, None for a value as a whole. ``varies`` says whether the reference has more than one number,
    ``one_number`` whether the candidate has only one.
    """

    name: str
    case: str
    max_abs: float
    relative: float
    sqnr_db: float
    cosine: float
    agreement: float | None = None
    part: str | None = None
    varies: bool = True
    one_number: bool = False

    def lost(self, least: float = LOST) -> bool:
        """Whether nothing useful is left of the value; ``least`` is the least SQNR of a part."""
        return self.varies and (self.one_number or (self.part is not None and self.sqnr_db < least))

    def to_json(self) -> dict[str, object]:
        """Plain data; an infinite SQNR (no difference at all) is None."""
        return asdict(self) | {"sqnr_db": finite(self.sqnr_db), "lost": self.lost()}


def finite(number: float | None) -> float | None:
    """The number as JSON can hold it: None where it is not finite."""
    return number if number is not None and math.isfinite(number) else None


def difference(name: str, case: str, reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """The measures for two arrays of one shape. Raises ``UserError`` when the shapes differ."""
    if reference.shape != candidate.shape:
        raise UserError(
            f"{name} has shape {list(reference.shape)} in the reference and {list(candidate.shape)} in the "
            "candidate; are these the same network?"
        )
    sums = Sums()
    sums.add(reference, candidate)
    return sums.difference(name, case)


class Sums:
    """The sums behind the measures of one value, over the ``pieces`` that were added."""

    def __init__(self) -> None:
        self.pieces = 0
        self._worst = self._top = self._energy = self._other = self._noise = self._shared = 0.0
        self._same = self._images = 0
        self._scores = True
        self._spans = [(math.inf, -math.inf)] * 2

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Takes in one piece; both arrays have one shape."""
        r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        gap = r - c
        self.pieces += 1
        self._spans = [
            (float(x.min(initial=low)), float(x.max(initial=high)))
            for (low, high), x in zip(self._spans, (r, c), strict=True)
        ]
        # Unlike Python's, numpy's maximum keeps a NaN.
        self._worst = float(np.maximum(self._worst, np.abs(gap).max(initial=0.0)))
        self._top = float(np.maximum(self._top, np.abs(r).max(initial=0.0)))
        self._energy += float(r @ r)
        self._other += float(c @ c)
        self._noise += float(gap @ gap)
        self._shared += float(r @ c)
        self._scores &= reference.ndim == 2 and reference.shape[1] > 1
        if self._scores:
            self._same += int(np.sum(reference.argmax(axis=1) == candidate.argmax(axis=1)))
            self._images += len(reference)

    @property
    def error(self) -> float:
        """The relative error in the mean square; infinite where the reference is zero and the candidate is not, and
        for values that are not finite.
        """
        if not math.isfinite(self._noise):
            return math.inf
        return math.sqrt(self._noise / self._energy) if self._energy else (math.inf if self._noise else 0.0)

    def difference(self, name: str, case: str, part: str | None = None) -> Difference:
        """The measures over all pieces, of the value ``name`` on ``case``."""
        worst, top, energy, noise = self._worst, self._top, self._energy, self._noise
        norms = math.sqrt(energy) * math.sqrt(self._other)
        ratio = energy / noise if noise else math.inf
        spread, other = (high - low for low, high in self._spans)
        return Difference(
            name,
            case,
            max_abs=worst,
            # A NaN or an infinite value is no small difference, whatever a maximum makes of it.
            relative=math.inf if not math.isfinite(noise) else worst / top if top else (0.0 if not worst else math.inf),
            sqnr_db=10 * math.log10(ratio) if ratio > 0 else -math.inf,
            cosine=self._shared / norms if norms else float(energy == self._other),
            agreement=self._same / self._images if self._scores and self._images else None,
            part=part,
            varies=bool(spread > _ROUNDING * top),
            one_number=bool(other == 0),
        )
