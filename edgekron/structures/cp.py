"""CP: a sum of rank-one kernels, which runs as the convolutions 1x1, depthwise kh x 1, depthwise 1 x kw, 1x1.

    W[f, c, h, w] = sum over r of A[r, f] B[r, c] P[r, h] Q[r, w]

Source: Lebedev, Ganin, Rakhuba, Oseledets, Lempitsky, *Speeding-up Convolutional Neural Networks Using Fine-tuned
CP-Decomposition* (ICLR 2015). The factors are found by alternating least squares. The best approximation need not
exist: terms can grow without bound and cancel (Phan et al., *Stable Low-rank Tensor Decomposition for Compression of
Convolutional Neural Network*, ECCV 2020), and then no fine-tuning and no quantization survives. So the ridge of the
least squares grows, up to the last of ``RIDGES``, until the ``degeneracy`` of the factors is at most ``LIMIT``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork, StructureError

from .splits import Unsplit, check_ranks
from .structure import NEGLIGIBLE, KernelShape, Ranks, Spectrum, spectrum, split

#: Sweeps of alternating least squares, at least and at most, as multiply-accumulates allow; the change of the error
#: below which they end.
SWEEPS, WORK, ENOUGH = (8, 100), 3e10, 1e-6
#: Ridges to try, relative to the mean diagonal of the normal equations, and the largest degeneracy that passes.
RIDGES = (1e-7, 1e-4, 1e-3, 1e-2)
LIMIT = 5.0


@dataclass(frozen=True)
class CP(Unsplit):
    """CP of a kernel [F, C / groups, kh, kw] with a window."""

    optimal = False
    note = ""

    @property
    def _modes(self) -> dict[str, int]:
        """Axis and size of each factor, in the order of the factors; window axes of size one have none."""
        _, c, h, w = self.kernel_shape
        sizes = {"f1": self.outputs, "c1": c, "h1": h, "w1": w}
        return {a: n for a, n in sizes.items() if n > 1 or a in ("f1", "c1")}

    @property
    def max_ranks(self) -> Ranks:
        """At the product of all sizes but the largest, every kernel is exact."""
        sizes = list(self._modes.values())
        return (math.prod(sizes) // max(sizes),)

    def network(self, *ranks: int) -> FactorNetwork:
        """One factor for each axis."""
        check_ranks(ranks, self.max_ranks, f"CP of {self}")
        g = "g " if self.groups > 1 else ""
        sizes = ({"g": self.groups} if g else {}) | {"r1": ranks[0]} | self._modes
        return FactorNetwork(", ".join(f"{g}r1 {axis}" for axis in self._modes), sizes)

    def decompose(self, kernel: Tensor) -> CPDecomposition:
        """Alternating least squares, run for each rank that is asked for."""
        if tuple(kernel.shape) != self.kernel_shape:
            raise StructureError(f"CP is for a kernel {self.kernel_shape}, not {tuple(kernel.shape)}")
        return CPDecomposition(self, kernel.reshape(self.groups, *self._modes.values()))


@dataclass(frozen=True)
class CPDecomposition:
    """The kernel [g, f, c, h, w], window axes of size one left out."""

    structure: CP
    tensor: Tensor

    @property
    def spectra(self) -> tuple[Spectrum, ...]:
        """None: the rank of CP is no rank of an unfolding."""
        return ()

    def truncated(self, *ranks: int) -> list[Tensor]:
        """The factors, each term's norm shared equally among its vectors."""
        (rank,) = ranks
        network = self.structure.network(rank)
        if ranks == self.structure.max_ranks:
            factors = _exact(self.tensor)
        else:
            factors = _start(self.tensor, rank)
            for ridge in RIDGES:
                factors = _alternate(self.tensor, factors, ridge)
                if degeneracy(factors, self.tensor) <= LIMIT:
                    break
        return [t.mT.reshape(network.factor_shape(i)) for i, t in enumerate(_shared(factors))]


def degeneracy(factors: Sequence[Tensor], kernel: Tensor) -> float:
    """Root of the summed squared norms of the terms over the kernel's norm: about one, unless terms cancel.

    ``factors`` are [..., n, r], one for each mode.
    """
    norms = math.prod(factor.double().square().sum(-2) for factor in factors)
    return float((torch.as_tensor(norms).sum() / kernel.double().square().sum().clamp_min(1e-30)).sqrt())


def _letters(count: int) -> str:
    return "abcd"[:count]


def _exact(tensor: Tensor) -> list[Tensor]:
    """A term for each element of all modes but the largest: unit vectors there, the kernel's fibres in the largest."""
    groups, *sizes = tensor.shape
    largest = sizes.index(max(sizes))
    rest = [n for mode, n in enumerate(sizes) if mode != largest]
    grid = torch.meshgrid(*[torch.arange(n) for n in rest], indexing="ij")
    units = [
        torch.eye(n, dtype=tensor.dtype)[i.flatten()].T.expand(groups, -1, -1) for n, i in zip(rest, grid, strict=True)
    ]
    fibres = tensor.movedim(1 + largest, 1).flatten(2)
    return [*units[:largest], fibres, *units[largest:]]


def _start(tensor: Tensor, rank: int) -> list[Tensor]:
    """Leading singular vectors of every unfolding, filled up with noise of the same size, equal in every run."""
    generator = torch.Generator().manual_seed(0)
    factors = []
    for mode in range(1, tensor.ndim):
        unfolded = tensor.movedim(mode, 1).flatten(2)
        # A vector without a singular value is orthogonal to the kernel: its term would stay zero for ever.
        values = spectrum(unfolded).values
        live = int((values > NEGLIGIBLE * values[:, :1]).any(0).sum())
        vectors, _ = split(unfolded, max(1, min(rank, live)))
        missing = rank - vectors.shape[-1]
        noise = torch.randn(*vectors.shape[:2], missing, generator=generator, dtype=torch.float64)
        noise = noise.to(tensor.dtype) / math.sqrt(vectors.shape[1])
        factors.append(torch.cat([vectors, noise], -1))
    return factors


def _alternate(tensor: Tensor, factors: list[Tensor], ridge: float) -> list[Tensor]:
    """Alternating least squares with a ridge, from ``factors``, the first of which is solved for first."""
    modes = range(len(factors))
    names = _letters(len(factors))
    total = float(tensor.double().square().sum())
    last = math.inf
    rank = factors[0].shape[-1]
    allowed = WORK / (len(factors) * (tensor.numel() * rank + len(tensor) * rank**3))
    for _ in range(max(SWEEPS[0], min(SWEEPS[1], int(allowed)))):
        for mode in modes:
            others = [m for m in modes if m != mode]
            equation = f"z{names}," + ",".join(f"z{names[m]}r" for m in others) + f"->z{names[mode]}r"
            target = torch.einsum(equation, tensor, *[factors[m] for m in others]).double()
            gram = torch.ones(())
            for m in others:
                gram = gram * (factors[m].double().mT @ factors[m].double())
            level = ridge * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(1e-30)
            gram = gram + level * torch.eye(gram.shape[-1], dtype=torch.float64)
            solved = torch.linalg.solve(gram, target.mT).mT
            factors[mode] = solved.to(tensor.dtype)
            if mode == modes[-1]:
                # |T - K|^2 = |T|^2 - 2 <T, K> + |K|^2, both from what this mode's solution is made of.
                inner = float((target * solved).sum())
                own = float(((solved.mT @ solved) * (gram - level * torch.eye(gram.shape[-1]))).sum())
                error = max(total - 2 * inner + own, 0.0) / max(total, 1e-30)
        factors = _shared(factors)
        if last - error < ENOUGH:
            break
        last = error
    return factors


def _shared(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same terms with equal norms of the vectors within each."""
    norms = [factor.norm(dim=-2, keepdim=True).clamp_min(1e-30) for factor in factors]
    mean = torch.stack([norm.log() for norm in norms]).mean(0).exp()
    return [factor * (mean / norm) for factor, norm in zip(factors, norms, strict=True)]


def templates(kernel_shape: KernelShape, groups: int) -> Iterator[CP]:
    """CP of a kernel with a window; without one it is no more than a matrix."""
    if kernel_shape[2:] != (1, 1):
        yield CP(kernel_shape, groups)
