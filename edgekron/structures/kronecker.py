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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork, StructureError

from .splits import check_ranks, divisors, read_splits, write_splits
from .structure import NEGLIGIBLE, KernelShape, Ranks, Spectrum

Split = tuple[int, int]

#: Largest C1 * F2 worth a closer look, and for a window of many input values: MACs at equal parameters grow with it.
WIDEST, WIDEST_LARGE, LARGE = 8, 2, 1200
#: What the factors run as, by class.
CLASSES = {
    "S1": "two ordinary convolutions",
    "S2": "a grouped convolution that repeats its filters, then an ordinary one",
    "S3": "an ordinary convolution, then one whose filters all groups share",
    "S4": "a depthwise convolution, then a 1x1 one",
    "S5": "two convolutions with shared filters and a shuffle of channels between",
}


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
    def max_ranks(self) -> Ranks:
        """(``max_rank``,)"""
        return (self.max_rank,)

    @property
    def optimal(self) -> bool:
        """One SVD is the optimum (Eckart and Young)."""
        return True

    @property
    def shape_class(self) -> str:
        """S1 to S5: which of the outer products need shared filters or a shuffle to run on plain convolutions."""
        if self.f[1] == 1 and self.c[0] == 1:
            return "S1"
        if self.f[1] == 1:
            return "S4" if self.c[1] == 1 and self.h[0] * self.w[0] == 1 else "S2"
        return "S3" if self.c[0] == 1 else "S5"

    @property
    def note(self) -> str:
        """The class of the shape, and the convolutions that it runs as."""
        return f"class {self.shape_class}: {CLASSES[self.shape_class]}"

    def network(self, *ranks: int) -> FactorNetwork:
        """The factor network of R terms; the only rank is R, between 1 and ``max_rank``."""
        check_ranks(ranks, self.max_ranks, f"Kronecker shape {self}")
        (rank,) = ranks
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

    @property
    def one_sided(self) -> bool:
        """Whether B has all input axes, and M no more rows than columns: ``decompose`` can take another ``gram``."""
        return self.c[0] * self.h[0] * self.w[0] == 1 and self.f[0] == self.max_rank

    def decompose(self, kernel: Tensor, gram: Tensor | None = None) -> KroneckerDecomposition:
        """All terms of the optimal decomposition of ``kernel`` [F, C / groups, kh, kw].

        In another inner product of B's axes than the plain one, ``gram`` [g, f1, f1] holds the products of M's rows:
        of a ``one_sided`` shape, the optimum is still the projection of M on their leading eigenvectors.
        """
        if tuple(kernel.shape) != self.kernel_shape:
            wanted, given = self.kernel_shape, tuple(kernel.shape)
            raise StructureError(f"Kronecker shape {self} is for a kernel {wanted}, not {given}")
        m = self.rearrange(kernel)
        # The Gram matrix of the short side is much cheaper than an SVD; in float64 it costs accuracy only below 1e-8.
        flipped = m.shape[1] > m.shape[2]
        short = m.mT if flipped else m
        if gram is None:
            precise = short.double()
            gram = precise @ precise.mT
        values, vectors = torch.linalg.eigh(gram)
        u, sigma = vectors.to(m.dtype).flip(-1), values.flip(-1).clamp_min(0.0).sqrt()
        return KroneckerDecomposition(self, short, u, sigma, flipped)

    def __str__(self) -> str:
        return write_splits(self.f, self.c, self.h, self.w, self.groups)

    @classmethod
    def parse(cls, text: str) -> KroneckerShape:
        """The shape that ``str`` writes; raises ``StructureError``."""
        example = "f 16x8, c 4x32, h 3x1, w 1x3"
        *splits, groups = read_splits(text, example)
        if any(len(s) != 2 for s in splits):
            raise StructureError(f"{text!r} does not split each axis in two; write it as {example!r}")
        f, c, h, w = ((s[0], s[1]) for s in splits)
        return cls(f, c, h, w, groups)


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

    @property
    def spectra(self) -> tuple[Spectrum, ...]:
        """Of M."""
        return (Spectrum(self.sigma.square(), self.m.shape[2]),)

    def truncated(self, *ranks: int) -> list[Tensor]:
        """The factors A and B of the first terms, shaped as ``shape.network`` says.

        Each has the square root of the singular values.
        """
        network = self.shape.network(*ranks)
        u, sigma = self.u[..., : ranks[0]], self.sigma[..., : ranks[0]]
        root = sigma.sqrt()
        left = (u * root[:, None, :]).mT.to(self.m.dtype)
        # u^T M is sigma v^T.
        inverse = torch.where(sigma > NEGLIGIBLE * sigma[..., :1], 1.0 / root, 0.0)
        right = (u * inverse[:, None, :]).mT.to(self.m.dtype) @ self.m
        sides = (right, left) if self.flipped else (left, right)
        return [side.reshape(network.factor_shape(i)) for i, side in enumerate(sides)]


def shapes(kernel_shape: KernelShape, groups: int = 1) -> Iterator[KroneckerShape]:
    """Every Kronecker shape of a kernel [F, C / groups, kh, kw], but for shapes with a factor of a single value."""

    def splits(size: int) -> list[Split]:
        return [(n, size // n) for n in divisors(size)]

    f, c, h, w = kernel_shape
    for fs in splits(f // groups):
        for cs in splits(c):
            for hs in splits(h):
                for ws in splits(w):
                    shape = KroneckerShape(fs, cs, hs, ws, groups)
                    if shape.max_rank > 1:
                        yield shape


def templates(kernel_shape: KernelShape, groups: int) -> Iterator[KroneckerShape]:
    """Kronecker shapes worth a closer look: the MACs at equal parameters range over 500x, and the lean shapes have
    small C1 and F2 (channel and spatial SVD have 1 and 1), or make a depthwise first stage (C2 = F2 = 1).
    """
    widest = WIDEST_LARGE if math.prod(kernel_shape[1:]) > LARGE else WIDEST
    for shape in shapes(kernel_shape, groups):
        if shape.shape_class == "S4" or shape.c[0] * shape.f[1] <= widest:
            yield shape
