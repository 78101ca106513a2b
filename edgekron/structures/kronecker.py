"""Kronecker structure: W = sum over r of A_r (x) B_r, for every factor shape and rank (GKPD).

Source: Hameed, Tahaei, Mosleh, Partovi Nia, *Convolutional Neural Network Compression through Generalized Kronecker
Product Decomposition* (AAAI 2022), definition 1 and the multidimensional nearest Kronecker product problem.

With each kernel axis split in two (f = f1 * F2 + f2, ...), the kernel is rearranged into a matrix

    M[(f1, c1, h1, w1), (f2, c2, h2, w2)] = W[f1 f2, c1 c2, h1 h2, w1 w2]

whose rows are the non-overlapping blocks of W. A sum of R Kronecker products is a matrix of rank R, so the truncated
SVD of M is the optimal A and B (Eckart and Young), and the squared error is the sum of the squared singular values
left out. Well-known decompositions are shapes of this one: F2 = C1 = 1 is the channel SVD (B has the window) or the
spatial SVD (A has one side of the window and B the other).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork, StructureError

#: Square root of a singular value, over the largest one's, below which a term is rounding.
NEGLIGIBLE = 1e-6

Split = tuple[int, int]
KernelShape = tuple[int, int, int, int]


@dataclass(frozen=True)
class KroneckerShape:
    """How each axis of a kernel is split between A (first number) and B; ``groups`` networks side by side.

    ``str`` and ``parse`` write it as ``f 16x8, c 4x32, h 3x1, w 1x3``.
    """

    f: Split
    c: Split
    h: Split
    w: Split
    groups: int = 1

    @property
    def kernel_shape(self) -> KernelShape:
        """[F, C / groups, kh, kw]"""
        f, c, h, w = (math.prod(split) for split in (self.f, self.c, self.h, self.w))
        return self.groups * f, c, h, w

    @cached_property
    def max_rank(self) -> int:
        """Full Kronecker rank: at this rank any kernel is represented exactly."""
        return min(math.prod(split[i] for split in (self.f, self.c, self.h, self.w)) for i in (0, 1))

    @property
    def optimal(self) -> bool:
        """One SVD is the optimum (Eckart and Young)."""
        return True

    def network(self, rank: int) -> FactorNetwork:
        """The factor network of R = ``rank`` terms, between 1 and ``max_rank``."""
        if not 1 <= rank <= self.max_rank:
            raise StructureError(f"Kronecker rank {rank} of shape {self} must be between 1 and {self.max_rank}")
        sizes = {"g": self.groups, "r": rank}
        factors = []
        for i in (0, 1):
            axes = [] if self.groups == 1 else ["g"]
            axes.append("r")
            for kind, split in (("f", self.f), ("c", self.c), ("h", self.h), ("w", self.w)):
                # A part of size one needs no axis, but a kernel axis needs one somewhere.
                if split[i] > 1 or (i == 0 and split == (1, 1)):
                    axes.append(f"{kind}{i + 1}")
                    sizes[f"{kind}{i + 1}"] = split[i]
            factors.append(" ".join(axes))
        if self.groups == 1:
            del sizes["g"]
        return FactorNetwork(", ".join(factors), sizes)

    def rearrange(self, kernel: Tensor) -> Tensor:
        """M [g, f1 c1 h1 w1, f2 c2 h2 w2] of a kernel [F, C / groups, kh, kw]."""
        view = kernel.reshape(self.groups, *self.f, *self.c, *self.h, *self.w)
        rows = math.prod(split[0] for split in (self.f, self.c, self.h, self.w))
        return view.permute(0, 1, 3, 5, 7, 2, 4, 6, 8).reshape(self.groups, rows, -1)

    def decompose(self, kernel: Tensor) -> KroneckerDecomposition:
        """All terms of the optimal decomposition of ``kernel`` [F, C / groups, kh, kw]."""
        if tuple(kernel.shape) != self.kernel_shape:
            wanted, given = self.kernel_shape, tuple(kernel.shape)
            raise StructureError(f"Kronecker shape {self} is for a kernel {wanted}, not {given}")
        m = self.rearrange(kernel)
        # The Gram matrix of the short side is much cheaper than an SVD; in float64 it costs accuracy only below 1e-8.
        flipped = m.shape[1] > m.shape[2]
        short = m.mT if flipped else m
        precise = short.double()
        values, vectors = torch.linalg.eigh(precise @ precise.mT)
        sigma = values.flip(-1).clamp_min(0.0).sqrt()
        return KroneckerDecomposition(self, short, vectors.flip(-1), sigma, flipped)

    def __str__(self) -> str:
        parts = ", ".join(f"{k} {s[0]}x{s[1]}" for k, s in (("f", self.f), ("c", self.c), ("h", self.h), ("w", self.w)))
        return parts if self.groups == 1 else f"{parts}, groups {self.groups}"

    @classmethod
    def parse(cls, text: str) -> KroneckerShape:
        """The shape that ``str`` writes; raises ``StructureError``."""
        pattern = r"f (\d+)x(\d+), c (\d+)x(\d+), h (\d+)x(\d+), w (\d+)x(\d+)(?:, groups (\d+))?"
        match = re.fullmatch(pattern, text.strip())
        numbers = [int(n or 1) for n in match.groups()] if match else [0]
        if min(numbers) < 1:
            example = "f 16x8, c 4x32, h 3x1, w 1x3"
            raise StructureError(f"{text!r} is no Kronecker shape; write it as {example!r}")
        f1, f2, c1, c2, h1, h2, w1, w2, groups = numbers
        return cls((f1, f2), (c1, c2), (h1, h2), (w1, w2), groups)


@dataclass(frozen=True)
class KroneckerDecomposition:
    """The singular value decomposition of M (transposed where ``flipped``): left vectors ``u`` and values ``sigma``
    [g, R].
    """

    shape: KroneckerShape
    m: Tensor
    u: Tensor
    sigma: Tensor
    flipped: bool

    def truncated(self, rank: int) -> list[Tensor]:
        """The factors A and B of the first ``rank`` terms, shaped as ``shape.network(rank)`` says.

        Each has the square root of the singular values.
        """
        network = self.shape.network(rank)
        u, root = self.u[..., :rank], self.sigma[..., :rank].sqrt()
        left = (u * root[:, None, :]).mT.to(self.m.dtype)
        # u^T M is sigma v^T.
        inverse = torch.where(root > NEGLIGIBLE * root[..., :1], 1.0 / root, 0.0)
        right = (u * inverse[:, None, :]).mT.to(self.m.dtype) @ self.m
        sides = (right, left) if self.flipped else (left, right)
        return [side.reshape(network.factor_shape(i)) for i, side in enumerate(sides)]

    def squared_error(self, rank: int) -> float:
        """What ``truncated`` leaves out, in the Frobenius norm: the tail of the squared singular values."""
        return float(self.sigma[:, rank:].square().sum())


def shapes(kernel_shape: KernelShape, groups: int = 1) -> Iterator[KroneckerShape]:
    """Every Kronecker shape of a kernel [F, C / groups, kh, kw], those with a single useless factor left out."""

    def splits(size: int) -> list[Split]:
        return [(n, size // n) for n in range(1, size + 1) if size % n == 0]

    f, c, h, w = kernel_shape
    for fs in splits(f // groups):
        for cs in splits(c):
            for hs in splits(h):
                for ws in splits(w):
                    shape = KroneckerShape(fs, cs, hs, ws, groups)
                    if shape.max_rank > 1:
                        yield shape
