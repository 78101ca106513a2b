"""Tensor ring: a chain of cores whose last is joined with the first.

    W[site 1, ..., site n] = trace of G1[r0, site 1, r1] G2[r1, site 2, r2] ... Gn[r(n-1), site n, r0]

Source: Wang, Sun, Eriksson, Wang, Aggarwal, *Wide Compression: Tensor Ring Nets* (CVPR 2018); closed form: the TR-SVD
of Zhao, Zhou, Xie, Zhang, Cichocki, *Tensor Ring Decomposition* (2016), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from edgekron.algebra import FactorNetwork

from .chain import CoreChain, OfChain, pipeline
from .splits import check_bonds
from .structure import KernelShape, Ranks, Spectrum, split
from .tensor_train import cores, train


@dataclass(frozen=True)
class TensorRing(OfChain):
    """A tensor ring over the sites of ``chain``; the first rank, r0, closes it."""

    optimal = False
    note = ""

    @property
    def max_ranks(self) -> Ranks:
        """(r0, r1, ...) with r0 * r1 at least the rank of the first unfolding, and then as a train has them."""
        dims = self.chain.dims
        first = min(dims[0], math.prod(dims[1:]))
        r0 = math.isqrt(first - 1) + 1
        ranks = [r0, -(-first // r0)]
        for i in range(1, len(dims) - 1):
            ranks.append(min(ranks[-1] * dims[i], r0 * math.prod(dims[i + 1 :])))
        return tuple(ranks)

    def network(self, *ranks: int) -> FactorNetwork:
        """The cores at ``ranks`` (r0, r1, ...)."""
        check_bonds(ranks, len(self.chain.sites), f"the tensor ring {self}")
        n = len(self.chain.sites)
        bonds = [([f"r{i}"], [f"r{(i + 1) % n}"]) for i in range(n)]
        return cores(self.chain, bonds, {f"r{i}": rank for i, rank in enumerate(ranks)})

    def decompose(self, kernel: Tensor) -> RingDecomposition:
        """The TR-SVD of ``kernel``."""
        return RingDecomposition(self, self.chain.tensor(kernel))


@dataclass(frozen=True)
class RingDecomposition:
    """The kernel [g, site 1, ...]. No spectrum tells its error: the ranks of a ring depend on each other."""

    structure: TensorRing
    tensor: Tensor

    @property
    def spectra(self) -> tuple[Spectrum, ...]:
        """None."""
        return ()

    def truncated(self, *ranks: int) -> list[Tensor]:
        """The cores. The first SVD's rank is shared between r0 and r1."""
        network = self.structure.network(*ranks)
        r0, r1 = ranks[:2]
        groups, first, *others = self.tensor.shape
        left, right = split(self.tensor.reshape(groups, first, -1), r0 * r1)
        left = left.reshape(groups, first, r0, r1)
        right = right.reshape(groups, r0, r1, -1)
        # The closing rank moves behind the last site, to which it belongs from here on.
        others[0] *= r1
        others[-1] *= r0
        rest = right.permute(0, 2, 3, 1).reshape(groups, *others)
        found = train(rest, ranks[2:], first=r1)
        tensors = [left.permute(0, 2, 1, 3), *found]
        return [t.reshape(network.factor_shape(i)) for i, t in enumerate(tensors)]


def templates(kernel_shape: KernelShape, groups: int) -> Iterator[TensorRing]:
    """The ring over c, h, w and f, and the one with the whole window in one core."""
    chain = pipeline(kernel_shape, groups)
    yield TensorRing(chain)
    if len(chain.sites) == 4:
        c, h, w, f = chain.sites
        yield TensorRing(CoreChain((c, h + w, f), groups))
