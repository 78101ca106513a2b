"""Tucker-2: a core kernel between two channel projections, three plain convolutions 1x1, kh x kw, 1x1.

    W[f, c, h, w] = sum over a, b of U[f, a] G[a, b, h, w] V[b, c]

Source: Kim, Park, Yoo, Choi, Yang, Shin, *Compression of Deep Convolutional Neural Networks for Fast and Low Power
Mobile Applications* (ICLR 2016), equations 2 to 4: Tucker decomposition of the two channel modes only. The closed form
is the higher-order SVD, improved by a few sweeps of orthogonal iteration (De Lathauwer, De Moor, Vandewalle 2000).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork, StructureError

from .splits import Unsplit, check_ranks
from .structure import KernelShape, Ranks, Spectrum, spectrum, split

#: Sweeps of orthogonal iteration after the higher-order SVD.
SWEEPS = 2


@dataclass(frozen=True)
class Tucker2(Unsplit):
    """Tucker-2 of a kernel [F, C / groups, kh, kw] with a window; the ranks are (outputs a, inputs b)."""

    optimal = False
    note = ""

    @property
    def max_ranks(self) -> Ranks:
        """(F / groups, C / groups), or what the other axes allow."""
        _, c, h, w = self.kernel_shape
        return min(self.outputs, c * h * w), min(c, self.outputs * h * w)

    def network(self, *ranks: int) -> FactorNetwork:
        """U, G and V at ranks (a, b)."""
        check_ranks(ranks, self.max_ranks, f"Tucker-2 of {self}")
        _, c, h, w = self.kernel_shape
        sizes = {"g": self.groups, "r1": ranks[0], "r2": ranks[1], "f1": self.outputs, "c1": c, "h1": h, "w1": w}
        sizes = {a: n for a, n in sizes.items() if n > 1 or a not in ("g", "h1", "w1")}
        g = "g " if self.groups > 1 else ""
        core = " ".join(["r1 r2", *(a for a in ("h1", "w1") if a in sizes)])
        return FactorNetwork(f"{g}r1 f1, {g}{core}, {g}r2 c1", sizes)

    def decompose(self, kernel: Tensor) -> TuckerDecomposition:
        """The higher-order SVD of ``kernel``."""
        if tuple(kernel.shape) != self.kernel_shape:
            raise StructureError(f"Tucker-2 is for a kernel {self.kernel_shape}, not {tuple(kernel.shape)}")
        return TuckerDecomposition(self, kernel.reshape(self.groups, self.outputs, *self.kernel_shape[1:]))


@dataclass(frozen=True)
class TuckerDecomposition:
    """Kernel [g, F, C, h, w] and the spectra of its two channel unfoldings."""

    structure: Tucker2
    kernel: Tensor

    @cached_property
    def spectra(self) -> tuple[Spectrum, ...]:
        """Of the unfoldings by outputs and by inputs."""
        return spectrum(self.kernel.flatten(2)), spectrum(self.kernel.transpose(1, 2).flatten(2))

    @cached_property
    def _inputs(self) -> Tensor:
        """All left singular vectors [g, C, n] of the unfolding by inputs: where the iteration starts."""
        unfolded = self.kernel.transpose(1, 2).flatten(2)
        return split(unfolded, min(unfolded.shape[1:]))[0]

    def truncated(self, *ranks: int) -> list[Tensor]:
        """U, G and V: orthonormal projections, and the core that they leave."""
        network = self.structure.network(*ranks)
        v = self._inputs[..., : ranks[1]]
        for _ in range(SWEEPS):
            by_outputs = torch.einsum("gfchw,gcb->gfbhw", self.kernel, v)
            u, _ = split(by_outputs.flatten(2), ranks[0])
            by_inputs = torch.einsum("gfchw,gfa->gcahw", self.kernel, u)
            v, _ = split(by_inputs.flatten(2), ranks[1])
        core = torch.einsum("gcahw,gcb->gabhw", by_inputs, v)
        return [t.reshape(network.factor_shape(i)) for i, t in enumerate((u.mT, core, v.mT))]


def templates(kernel_shape: KernelShape, groups: int) -> Iterator[Tucker2]:
    """Tucker-2 of a kernel with a window; without one it is no more than a matrix."""
    if kernel_shape[2:] != (1, 1):
        yield Tucker2(kernel_shape, groups)
