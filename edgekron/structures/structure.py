"""The members of every structure: a layout of factors, its ranks left open, with a closed form.

A new family is a class with the members of ``Structure``, and a line in ``edgekron.structures.families``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork

KernelShape = tuple[int, int, int, int]
Ranks = tuple[int, ...]

#: Singular value, over the largest one, below which a term is rounding.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class Spectrum:
    """Squared singular values [g, n], descending, of the unfolding that a rank cuts: a matrix of n by ``long``."""

    values: Tensor
    long: int

    def tail(self) -> Tensor:
        """Squared error [n + 1] of cutting at rank 0, 1, ..., n, all groups together."""
        total = self.values.sum(0).flip(0).cumsum(0).flip(0)
        return torch.cat([total, total.new_zeros(1)])


class Decomposition(Protocol):
    """A structure's closed form for one kernel, to be cut at any ranks."""

    @property
    def spectra(self) -> tuple[Spectrum, ...]:
        """One for each rank, or none for a structure whose error no spectrum tells."""
        ...

    def truncated(self, *ranks: int) -> list[Tensor]:
        """The factors at ``ranks``, shaped as the network's, of the kernel's type."""
        ...


class Structure(Protocol):
    """A layout of factors. ``str`` writes the layout for a plan, and ``Family.parse`` reads that text."""

    @property
    def kernel_shape(self) -> KernelShape:
        """[F, C / groups, kh, kw]"""
        ...

    @property
    def groups(self) -> int:
        """Groups of the convolution, each with a network of its own."""
        ...

    @property
    def max_ranks(self) -> Ranks:
        """The ranks at which any kernel is exact."""
        ...

    @property
    def optimal(self) -> bool:
        """Whether the closed form has the least Frobenius error at every rank: the tail of its one spectrum."""
        ...

    @property
    def note(self) -> str:
        """A remark for the reader of a plan; may be empty."""
        ...

    def network(self, *ranks: int) -> FactorNetwork:
        """The factor network at ``ranks``. Raises ``StructureError`` for ranks below one or above the largest."""
        ...

    def decompose(self, kernel: Tensor) -> Decomposition:
        """The closed form for a kernel [F, C / groups, kh, kw]. Raises ``StructureError`` for another shape."""
        ...


@dataclass(frozen=True)
class Family:
    """A method by name: how a plan's text becomes a structure, and which structures are worth a try for a kernel."""

    parse: Callable[[str], Structure]
    templates: Callable[[KernelShape, int], Iterable[Structure]]
    #: Whether the family is for storage: layers that cost more than dense ones when contracted are expanded at load.
    stores: bool = False


def spectrum(m: Tensor) -> Spectrum:
    """Squared singular values of m [g, rows, columns]."""
    short = (m if m.shape[1] <= m.shape[2] else m.mT).double()
    return Spectrum(torch.linalg.eigvalsh(short @ short.mT).flip(-1).clamp_min(0.0), max(m.shape[1:]))


def split(m: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Left [g, rows, rank], with orthonormal columns, and right [g, rank, columns]: the best approximation of m.

    From the Gram matrix of the short side in float64: much cheaper than an SVD, and less accurate only below 1e-8. A
    rank above the short side is filled up with zeros.
    """
    if rank > min(m.shape[1:]):
        lack = rank - min(m.shape[1:])
        left, right = split(m, rank - lack)
        return torch.nn.functional.pad(left, (0, lack)), torch.nn.functional.pad(right, (0, 0, 0, lack))
    wide = m.shape[1] <= m.shape[2]
    short = m if wide else m.mT
    precise = short.double()
    values, vectors = torch.linalg.eigh(precise @ precise.mT)
    u, sigma = vectors.flip(-1)[..., :rank], values.flip(-1)[..., :rank].clamp_min(0.0).sqrt()
    if wide:
        return u.to(m.dtype), u.mT.to(m.dtype) @ m
    inverse = torch.where(sigma > NEGLIGIBLE * sigma[..., :1], 1.0 / sigma, 0.0)
    return m @ (u * inverse[..., None, :]).to(m.dtype), (u * sigma[..., None, :]).mT.to(m.dtype)
