"""Fits factors to a layer's outputs instead of its weights.

With the moments of ``edgekron.moments``, the error of a kernel K is a quadratic form in K, and K is multilinear in the
factors. Every fit has the same three parts, whatever the structure:

1. *Whitening.* xx is approximated by a Kronecker product with one matrix S_t for each factor, over that factor's own
input
   axes (a power iteration of partial traces). With S_t = L_t L_t^T, the error of K is nearly the plain Frobenius
   error of K L, L = (x) L_t, and K L has the same structure as K, since each L_t is absorbed by its factor.
2. *Closed form.* The structure's own decomposition of K* L, where K* is the least-squares kernel. For the channel SVD
this
   is the exact optimum (the principal components of the outputs), because one factor has all the input axes.
3. *Refinement.* L-BFGS on the exact error in the whitened factors, where it is well conditioned.

A ridge keeps L_t invertible where the data have no variance: Cholesky of the bare, often singular matrix would fail
there.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .algebra import FactorNetwork
from .moments import Moments

#: Share of the mean variance added to the diagonal of each S_t.
RIDGE = 1e-5
#: Dimensions above which a matrix of the whitening is kept, once it is computed, in float32.
LARGE = 2048


class Decomposition(Protocol):
    """A structure's closed form, to be cut at any rank."""

    def truncated(self, rank: int) -> list[Tensor]:
        """The factors at ``rank``."""
        ...

    def squared_error(self, rank: int) -> float:
        """Squared Frobenius error at ``rank``."""
        ...


class Template(Protocol):
    """A structure without its rank: what ``fit`` needs of it."""

    @property
    def max_rank(self) -> int:
        """The rank at which any kernel is exact."""
        ...

    def network(self, rank: int) -> FactorNetwork:
        """The factor network at ``rank``."""
        ...

    def decompose(self, kernel: Tensor) -> Decomposition:
        """The closed form for a kernel [F, C / groups, kh, kw]."""
        ...


@dataclass(frozen=True)
class Fit:
    """Fitted factors (float32), and their output error relative to the outputs' variance."""

    network: FactorNetwork
    tensors: tuple[Tensor, ...]
    error: float

    def kernel(self) -> Tensor:
        """The dense kernel that the factors stand for."""
        kernel: Tensor = self.network.expand(self.tensors)
        return kernel


class Whitening:
    """L = (x) L_t for one way of sharing the input axes among factors, with the inverse of each L_t.

    Built for any rank of a template: only the axes c, h, w of each factor matter.
    """

    def __init__(self, network: FactorNetwork, moments: Moments) -> None:
        self._network = network
        self._input = [a for kind in "chw" for a in network.parts(kind)]
        self._shares = [[a for a in axes if a in self._input] for axes in network.axes]
        sizes = network.sizes
        groups, shape = moments.xx.shape[0], [sizes[a] for a in self._input]
        full = moments.xx.reshape(groups, *shape, *shape)
        n = len(self._input)
        order = [self._input.index(a) for share in self._shares for a in share]
        grouped = full.permute(0, *(1 + i for i in order), *(1 + n + i for i in order))
        dims = [math.prod(sizes[a] for a in share) for share in self._shares]
        self._lower = [self._cholesky(s) for s in _nearest_kronecker(grouped.reshape(groups, *dims, *dims), dims)]

    @staticmethod
    def _cholesky(s: Tensor) -> Tensor:
        """Cholesky factor of s [g, d, d] plus a ridge, which grows until rounding no longer makes it indefinite."""
        diagonal = s.diagonal(dim1=-2, dim2=-1)
        level = diagonal.mean(-1, keepdim=True).clamp_min(1e-30)
        added = 0.0
        for power in range(6):
            ridge = RIDGE * 10.0**power
            diagonal += (ridge - added) * level
            added = ridge
            lower, info = torch.linalg.cholesky_ex(s)
            if not info.any():
                # Halves what stays in memory beside the moments; the factor is a change of coordinates, its inverse
                # undoes it.
                factor: Tensor = lower.float() if s.shape[-1] > LARGE else lower
                return factor
        raise FloatingPointError("the second moments are not finite")

    def kernel(self, kernel: Tensor) -> Tensor:
        """K L for a kernel [F, C / groups, kh, kw], in float64."""
        sizes = self._network.sizes
        shape = [sizes[a] for a in self._input]
        groups = self._lower[0].shape[0]
        view = kernel.double().reshape(groups, -1, *shape)
        for share, low in zip(self._shares, self._lower, strict=True):
            places = [2 + self._input.index(a) for a in share]
            view = self._multiply(view.to(low.dtype), places, low).double()
        return view.reshape(kernel.shape)

    @staticmethod
    def _multiply(view: Tensor, axes: list[int], matrix: Tensor, *, inverse: bool = False) -> Tensor:
        """Multiplies the joint ``axes`` of ``view`` [g, ...] from the right by ``matrix`` [g, d, d] or its inverse."""
        if not axes:
            scale = matrix[:, :1, :1].reshape(-1, *[1] * (view.ndim - 1))
            return view / scale if inverse else view * scale
        rest = [i for i in range(1, view.ndim) if i not in axes]
        order = [0, *rest, *axes]
        moved = view.permute(order)
        rows = moved.reshape(len(matrix), -1, matrix.shape[-1])
        product = torch.linalg.solve_triangular(matrix, rows, upper=False, left=False) if inverse else rows @ matrix
        back = [order.index(i) for i in range(view.ndim)]
        return product.reshape(moved.shape).permute(back)

    def factor(self, index: int, tensor: Tensor, *, inverse: bool) -> Tensor:
        """One factor times L_t, or (inverse) a whitened factor back to a plain one."""
        axes = self._network.axes[index]
        matrix = self._lower[index].to(tensor.dtype)
        with_group = "g" in axes
        view = tensor if with_group else tensor[None]
        # A factor that all groups share is whitened by their mean.
        matrix = matrix if with_group else matrix.mean(0, keepdim=True)
        offset = 0 if with_group else 1
        places = [axes.index(a) + offset for a in self._shares[index]]
        moved = self._multiply(view, places, matrix, inverse=inverse)
        return moved if with_group else moved[0]


def _nearest_kronecker(xx: Tensor, dims: Sequence[int], sweeps: int = 2) -> list[Tensor]:
    """S_t [g, d_t, d_t], with xx [g, d_1, ..., d_1, ...] ~ (x) S_t: alternating least squares, from identities.

    Each update contracts xx with the other, positive semidefinite matrices, so it stays positive semidefinite.
    """
    groups, n = xx.shape[0], len(dims)
    factors = [torch.eye(d, dtype=torch.float64).repeat(groups, 1, 1) for d in dims]
    busy = [t for t in range(n) if dims[t] > 1]
    if len(busy) <= 1:
        alone = busy[0] if busy else 0
        factors[alone] = xx.reshape(groups, dims[alone], dims[alone]).double()
        return factors
    left, right = string.ascii_lowercase[:n], string.ascii_uppercase[:n]
    for _ in range(sweeps):
        for t in busy:
            others = [u for u in busy if u != t]
            terms = ",".join(f"z{left[u]}{right[u]}" for u in others)
            norm = max(math.prod(float((factors[u] ** 2).sum()) / groups for u in others), 1e-30)
            operands = [factors[u].to(xx.dtype) for u in others]
            value = torch.einsum(f"z{left}{right},{terms}->z{left[t]}{right[t]}", xx, *operands).double() / norm
            factors[t] = (value + value.mT) / 2
    return factors


def least_squares_kernel(moments: Moments, kernel: Tensor) -> Tensor:
    """K* = yx xx^-1, leaning to the original ``kernel`` where xx has no variance. Shape and type of ``kernel``."""
    dtype = torch.float64 if moments.xx.shape[-1] <= LARGE else torch.float32
    left = moments.xx.to(dtype, copy=True)
    diagonal = left.diagonal(dim1=-2, dim2=-1)
    level = RIDGE * diagonal.mean(-1, keepdim=True).clamp_min(1e-30)
    diagonal += level
    right = moments.yx.to(dtype) + level[..., None] * kernel.to(dtype).reshape(moments.yx.shape)
    solved: Tensor = torch.linalg.solve(left, right.mT).mT
    return solved.reshape(kernel.shape).to(kernel.dtype)


class Fitter:
    """All ranks of one template on one layer: the whitening and the closed form are computed once."""

    def __init__(self, template: Template, kernel: Tensor, moments: Moments | None) -> None:
        self._template = template
        self._moments = moments
        self._whitening = Whitening(template.network(1), moments) if moments else None
        target = self._whitening.kernel(kernel) if self._whitening else kernel
        self._closed = template.decompose(target)
        self._kernel = kernel

    def closed_form(self, rank: int) -> Fit:
        """The closed form at ``rank``; without moments, the optimum for the weights."""
        return self._result(self._template.network(rank), self._closed_factors(rank))

    def closed_form_kernel(self, rank: int) -> Tensor:
        """The dense kernel of ``closed_form(rank)``, whose error has not been computed."""
        kernel: Tensor = self._template.network(rank).expand([t.float() for t in self._closed_factors(rank)])
        return kernel

    def closed_form_error(self, rank: int) -> float:
        """The error of ``closed_form(rank)``; without moments read off the singular values."""
        if self._moments:
            return self.closed_form(rank).error
        return self._closed.squared_error(rank) / float(self._kernel.double().square().sum().clamp_min(1e-30))

    def refined(self, start: Fit, iterations: int) -> Fit:
        """``start`` improved by at most ``iterations`` L-BFGS steps on the exact output error; never worse."""
        if self._moments is None or self._whitening is None:
            return start
        better = refine(start.network, start.tensors, self._moments, self._whitening, iterations)
        result = self._result(start.network, better)
        return result if result.error < start.error else start

    def _closed_factors(self, rank: int) -> list[Tensor]:
        tensors = self._closed.truncated(rank)
        if self._whitening is None:
            return tensors
        return [self._whitening.factor(i, t, inverse=True) for i, t in enumerate(tensors)]

    def _result(self, network: FactorNetwork, tensors: Sequence[Tensor]) -> Fit:
        fitted = balanced([t.detach() for t in tensors])
        kernel = network.expand(fitted)
        if self._moments:
            error = self._moments.error(kernel)
        else:
            difference = (kernel - self._kernel.float()).double()
            error = float(difference.square().sum() / self._kernel.double().square().sum().clamp_min(1e-30))
        return Fit(network, tuple(fitted), error)


def refine(
    network: FactorNetwork, start: Sequence[Tensor], moments: Moments, whitening: Whitening, iterations: int
) -> list[Tensor]:
    """Minimises <K xx, K> / 2 - <K, yx> over the factors by L-BFGS in whitened coordinates."""
    whitened = [
        whitening.factor(i, t.double(), inverse=False).float().detach().requires_grad_() for i, t in enumerate(start)
    ]
    scale = 1.0 / max(moments.yy, 1e-30)
    optimiser = torch.optim.LBFGS(
        whitened, max_iter=iterations, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def plain() -> list[Tensor]:
        return [whitening.factor(i, t, inverse=True) for i, t in enumerate(whitened)]

    def closure() -> Tensor:
        optimiser.zero_grad()
        kernel = network.expand(plain())
        k = kernel.detach().reshape(moments.yx.shape)
        product = k @ moments.xx
        # The gradient with respect to K is known; only the factors' share is left to autograd.
        kernel.backward(((product - moments.yx) * scale).reshape(kernel.shape))
        value: Tensor = ((product / 2 - moments.yx) * k).sum() * scale
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return plain()


def balanced(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same factors, float32, with equal norms: the scale between two factors is free."""
    norms = [float(t.norm()) for t in tensors]
    if min(norms) <= 0.0:
        return [t.float() for t in tensors]
    mean = math.exp(sum(math.log(n) for n in norms) / len(norms))
    return [(t * (mean / n)).float() for t, n in zip(tensors, norms, strict=True)]
