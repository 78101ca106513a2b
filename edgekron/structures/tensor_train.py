"""Tensor train: a chain of cores, neighbours joined by one rank.

    W[site 1, ..., site n] = sum over r1 ... of G1[site 1, r1] G2[r1, site 2, r2] ... Gn[r(n-1), site n]

Source: Garipov, Podoprikhin, Novikov, Vetrov, *Ultimate tensorization: compressing convolutional and FC layers alike*
(2016), with the TT-SVD of Oseledets (2011) as closed form. The paper's form puts the window first and splits the
channels, matrix-TT (equation 7): few parameters, whose contraction mostly costs more than the dense layer. The chain
c | h | w | f (the paper's naive form) runs as four plain convolutions 1x1, kh x 1, 1 x kw, 1x1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgekron.algebra import FactorNetwork

from .chain import CoreChain, OfChain, Site, pipeline
from .splits import balanced_factors, check_bonds
from .structure import KernelShape, Ranks, Spectrum, spectrum, split

#: Numbers of parts that the channels are split into by the matrix form.
MODES = (2, 3, 4)


@dataclass(frozen=True)
class TensorTrain(OfChain):
    """A tensor train over the sites of ``chain``."""

    @property
    def optimal(self) -> bool:
        """Two cores are one SVD."""
        return len(self.chain.sites) == 2

    @property
    def note(self) -> str:
        """Empty: the text of the chain says all."""
        return ""

    @property
    def max_ranks(self) -> Ranks:
        """The ranks of the unfoldings: the smaller of their sides."""
        dims = self.chain.dims
        return tuple(min(math.prod(dims[:i]), math.prod(dims[i:])) for i in range(1, len(dims)))

    def network(self, *ranks: int) -> FactorNetwork:
        """The cores at ``ranks``, one for each pair of neighbours."""
        check_bonds(ranks, len(self.chain.sites) - 1, f"the tensor train {self}")
        last = len(self.chain.sites) - 1
        bonds = [([f"r{i}"] if i > 0 else [], [f"r{i + 1}"] if i < last else []) for i in range(len(self.chain.sites))]
        return cores(self.chain, bonds, {f"r{i}": rank for i, rank in enumerate(ranks, 1)})

    def decompose(self, kernel: Tensor) -> TrainDecomposition:
        """The TT-SVD of ``kernel``."""
        return TrainDecomposition(self, self.chain.tensor(kernel))


@dataclass(frozen=True)
class TrainDecomposition:
    """The kernel [g, site 1, ...]."""

    structure: TensorTrain
    tensor: Tensor

    @cached_property
    def spectra(self) -> tuple[Spectrum, ...]:
        """Of the unfoldings between neighbouring sites; the squared error is at most the sum of their tails."""
        groups = len(self.tensor)
        rows = (math.prod(self.structure.chain.dims[:i]) for i in range(1, len(self.structure.chain.dims)))
        return tuple(spectrum(self.tensor.reshape(groups, n, -1)) for n in rows)

    def truncated(self, *ranks: int) -> list[Tensor]:
        """The cores, left-orthonormal but for the last."""
        network = self.structure.network(*ranks)
        found = train(self.tensor, ranks)
        return [t.reshape(network.factor_shape(i)) for i, t in enumerate(found)]


def train(tensor: Tensor, ranks: Ranks, first: int = 1) -> list[Tensor]:
    """Cores [g, r(i-1), site i, r(i)] of ``tensor`` [g, first * site 1, site 2, ...] by TT-SVD."""
    groups, dims = len(tensor), list(tensor.shape[1:])
    found, rest, left = [], tensor, first
    dims[0] //= first
    for size, rank in zip(dims, ranks, strict=False):
        core, rest = _split_off(rest.reshape(groups, left * size, -1), rank)
        found.append(core.reshape(groups, left, size, core.shape[-1]))
        left = rank
    found.append(rest.reshape(groups, left, dims[-1], -1))
    return found


def _split_off(m: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``split``, but a rank that cuts nothing needs no eigenvectors: any orthonormal basis will do."""
    rows, columns = m.shape[1:]
    lack = rank - min(rows, columns)
    if lack < 0:
        return split(m, rank)
    if rows <= columns:
        left, right = torch.eye(rows, dtype=m.dtype).expand(len(m), -1, -1), m
    else:
        left, right = torch.linalg.qr(m)
    return pad(left, (0, lack)), pad(right, (0, 0, 0, lack))


def cores(chain: CoreChain, bonds: list[tuple[list[str], list[str]]], ranks: dict[str, int]) -> FactorNetwork:
    """The network with one factor for each site: left bonds, the site's axes, right bonds."""
    sizes = {"g": chain.groups} if chain.groups > 1 else {}
    sizes |= ranks | {name: size for site in chain.axes for name, size in site}
    factors = [
        " ".join([*(["g"] if chain.groups > 1 else []), *left, *(name for name, _ in site), *right])
        for site, (left, right) in zip(chain.axes, bonds, strict=True)
    ]
    return FactorNetwork(", ".join(factors), sizes)


def pipelines(kernel_shape: KernelShape, groups: int) -> Iterator[TensorTrain]:
    """The chain that runs as plain convolutions."""
    yield TensorTrain(pipeline(kernel_shape, groups))


def matrix_chains(kernel_shape: KernelShape, groups: int) -> Iterator[CoreChain]:
    """The window first, then the channels split into two to four parts each (the paper's form)."""
    f, c, h, w = kernel_shape
    window: tuple[Site, ...] = ((("h", h), ("w", w)),) if h * w > 1 else ()
    for count in MODES:
        inputs, outputs = balanced_factors(c, count), balanced_factors(f // groups, count)
        if min(*inputs, *outputs) > 1:
            sites = tuple((("c", n), ("f", m)) for n, m in zip(inputs, outputs, strict=True))
            yield CoreChain((*window, *sites), groups)


def matrix_trains(kernel_shape: KernelShape, groups: int) -> Iterator[TensorTrain]:
    """Tensor trains of the paper's form."""
    yield from map(TensorTrain, matrix_chains(kernel_shape, groups))
