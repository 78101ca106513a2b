"""How a plan writes the axes of a structure: ``f 16x8, c 4x32, h 3x1, w 1x3``, parts coarse to fine."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from edgekron.algebra import StructureError

Split = tuple[int, ...]

_PATTERN = re.compile(r"f ([\dx]+), c ([\dx]+), h ([\dx]+), w ([\dx]+)(?:, groups (\d+))?")
_NUMBERS = re.compile(r"[1-9]\d*(x[1-9]\d*)*")


def write_splits(f: Split, c: Split, h: Split, w: Split, groups: int) -> str:
    """The text of the parts of each axis; ``groups`` only where there are several."""
    parts = ", ".join(f"{kind} {'x'.join(map(str, s))}" for kind, s in zip("fchw", (f, c, h, w), strict=True))
    return parts if groups == 1 else f"{parts}, groups {groups}"


def read_splits(text: str, example: str) -> tuple[Split, Split, Split, Split, int]:
    """The parts of f, c, h and w and the groups. Raises ``StructureError`` that shows an ``example``."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None or not all(_NUMBERS.fullmatch(group) for group in match.groups() if group is not None):
        raise StructureError(f"{text!r} is no shape of this method; write it as {example!r}")
    f, c, h, w = (tuple(int(n) for n in part.split("x")) for part in match.groups()[:4])
    return f, c, h, w, int(match[5] or 1)


@dataclass(frozen=True)
class Unsplit:
    """A structure that splits no axis of a kernel [F, C / groups, kh, kw]; written ``f 64, c 64, h 3, w 3``."""

    kernel_shape: tuple[int, int, int, int]
    groups: int = 1

    @property
    def outputs(self) -> int:
        """Outputs of one group."""
        return self.kernel_shape[0] // self.groups

    def __str__(self) -> str:
        _, c, h, w = self.kernel_shape
        return write_splits((self.outputs,), (c,), (h,), (w,), self.groups)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The structure that ``str`` writes; raises ``StructureError``."""
        example = "f 64, c 64, h 3, w 3"
        *splits, groups = read_splits(text, example)
        if any(len(s) != 1 for s in splits):
            raise StructureError(f"{text!r} splits an axis, which {cls.__name__} does not; write it as {example!r}")
        f, c, h, w = (s[0] for s in splits)
        return cls((f * groups, c, h, w), groups)


def check_ranks(ranks: Sequence[int], largest: Sequence[int], what: object) -> None:
    """Raises ``StructureError`` for ranks that are too many, too few, below one or above the largest."""
    if len(ranks) != len(largest) or any(not 1 <= r <= m for r, m in zip(ranks, largest, strict=True)):
        given, most = " ".join(map(str, ranks)), " ".join(map(str, largest))
        raise StructureError(f"ranks {given} of {what} must be {len(largest)} of at least 1 and at most {most}")


def check_bonds(ranks: Sequence[int], count: int, what: object) -> None:
    """Raises ``StructureError`` for ranks that are too many, too few or below one.

    No rank is too large: published chains have larger ranks than any kernel needs.
    """
    if len(ranks) != count or min(ranks) < 1:
        raise StructureError(f"ranks {' '.join(map(str, ranks))} of {what} must be {count} of at least 1")


def balanced_factors(n: int, count: int) -> Split:
    """``n`` as a product of ``count`` factors as equal as its primes allow, in rising order."""
    factors = [1] * count
    for prime in reversed(_primes(n)):
        factors[factors.index(min(factors))] *= prime
    return tuple(sorted(factors))


def divisors(n: int) -> list[int]:
    """All divisors of ``n``."""
    return [d for d in range(1, n + 1) if n % d == 0]


def _primes(n: int) -> list[int]:
    found, p = [], 2
    while p <= math.isqrt(n):
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return found + [n] * (n > 1)
