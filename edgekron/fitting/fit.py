"""Fits factors to a layer's outputs instead of its weights.

With the moments of ``edgekron.fitting.moments``, the error of a kernel K is a quadratic form in K, and K is multilinear
in the factors. For all structures a fit has the same three parts:

1. *Whitening.* xx is approximated by a Kronecker product with one matrix S_t for each factor, over that factor's own
   input axes (a power iteration of partial traces). With S_t = L_t L_t^T, the error of K is nearly the plain Frobenius
   error of K L, L = (x) L_t, and K L has the same structure as K, since each factor absorbs its L_t.
2. *Closed form.* The structure's own decomposition of K* L, where K* is the least-squares kernel. For the channel SVD
   this is the exact optimum (the principal components of the outputs), because one factor has all the input axes; it
   needs the products of the outputs only, K* xx K*^T, which are much smaller than L.
3. *Refinement.* L-BFGS on the exact error, which is well conditioned in the whitened factors.

A ridge keeps L_t invertible in directions without variance: Cholesky of the bare, often singular matrix would fail.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork
from edgekron.graph import Factorized, Layer
from edgekron.memory import give_back
from edgekron.structures import Decomposition, KroneckerShape, Ranks, Spectrum, Structure

from .moments import PIECE, Moments

#: Share of the mean variance added to the diagonal of each S_t.
RIDGE = 1e-5
#: Dimensions above which Cholesky runs in float32: half the memory and time.
LARGE = 2048

#: Steps that L-BFGS remembers, each of twice the size of the factors.
HISTORY = 5


@dataclass(frozen=True)
class Fit:
    """Fitted factors (float32), and their output error relative to the outputs' variance."""

    network: FactorNetwork
    tensors: tuple[Tensor, ...]
    error: float

    def kernel(self) -> Tensor:
        """The dense kernel that the factors stand for."""
        return self.network.expand(self.tensors)


class Whitening:
    """L = (x) L_t for one way of sharing the input axes among factors, and the inverse of each L_t.

    float32 is enough for a change of coordinates that is undone afterwards. One whitening serves all ranks of a
    template: only the axes c, h, w of each factor matter.
    """

    def __init__(self, network: FactorNetwork, moments: Moments) -> None:
        self._network = network
        self._input = [a for kind in "chw" for a in network.parts(kind)]
        self._shares = [[a for a in axes if a in self._input] for axes in network.axes]
        sizes = [network.sizes[a] for a in self._input]
        places = [[self._input.index(a) for a in share] for share in self._shares]
        matrices = _nearest_kronecker(moments.xx, sizes, places)
        give_back()
        self._lower = [_cholesky(s)[0].float() for s in matrices]

    @property
    def exact(self) -> bool:
        """Whether the error is the plain one of K L, not only nearly: one factor has all input axes."""
        return sum(low.shape[-1] > 1 for low in self._lower) <= 1

    def kernel(self, kernel: Tensor) -> Tensor:
        """K L for a kernel [F, C / groups, kh, kw]."""
        shape = [self._network.sizes[a] for a in self._input]
        groups = self._lower[0].shape[0]
        view = kernel.reshape(groups, -1, *shape)
        for share, low in zip(self._shares, self._lower, strict=True):
            places = [2 + self._input.index(a) for a in share]
            view = self._multiply(view.float(), places, low)
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
        with_group = "g" in axes
        view = (tensor if with_group else tensor[None]).float()
        matrix = self._lower[index]
        if not with_group and len(matrix) > 1:
            # A factor that all groups share is whitened by their mean.
            matrix = matrix.mean(0, keepdim=True)
        offset = 0 if with_group else 1
        places = [axes.index(a) + offset for a in self._shares[index]]
        moved = self._multiply(view, places, matrix, inverse=inverse)
        return moved if with_group else moved[0]


def _nearest_kronecker(
    xx: Tensor, sizes: Sequence[int], shares: Sequence[Sequence[int]], sweeps: int = 2
) -> list[Tensor]:
    """S_t [g, d_t, d_t], with xx [g, d, d] ~ (x) S_t: alternating least squares, from identities.

    ``sizes`` are those of the input axes that d runs over; ``shares`` are the positions of each factor's own ones.
    Each update contracts xx with the other, positive semidefinite matrices, so it stays positive semidefinite.
    """
    groups = len(xx)
    dims = [math.prod(sizes[i] for i in share) for share in shares]
    factors = [torch.eye(d, dtype=xx.dtype).repeat(groups, 1, 1) for d in dims]
    busy = [t for t, d in enumerate(dims) if d > 1]
    if len(busy) <= 1:
        factors[busy[0] if busy else 0] = xx
        return factors
    full = xx.reshape(groups, *sizes, *sizes)
    left, right = string.ascii_lowercase[: len(sizes)], string.ascii_uppercase[: len(sizes)]
    names = ["z" + "".join(left[i] for i in share) + "".join(right[i] for i in share) for share in shares]
    for _ in range(sweeps):
        for t in busy:
            others = [u for u in busy if u != t]
            squares = [factors[u].double().square().sum((1, 2)) for u in others]
            norm = torch.stack(squares).prod(0).clamp_min(1e-30)[:, None, None].to(xx.dtype)
            operands = [factors[u].reshape(groups, *[sizes[i] for i in shares[u]] * 2) for u in others]
            equation = f"z{left}{right},{','.join(names[u] for u in others)}->{names[t]}"
            value = _einsum_by_rows(equation, left[0], full, *operands).reshape(groups, dims[t], dims[t]) / norm
            factors[t] = (value + value.mT) / 2
    return factors


def _einsum_by_rows(equation: str, row: str, *operands: Tensor) -> Tensor:
    """``torch.einsum`` of two or more operands, in slices along the axis ``row`` because einsum copies operands."""
    inputs, output = equation.split("->")
    places = [axes.find(row) for axes in inputs.split(",")]
    size = operands[0].shape[places[0]]
    step = max(1, size * PIECE // operands[0].numel())
    total: Tensor | None = None
    parts = []
    for start in range(0, size, step):
        pieces = [
            x if place < 0 else x.narrow(place, start, min(step, size - start))
            for x, place in zip(operands, places, strict=True)
        ]
        value = torch.einsum(equation, *pieces)
        if row in output:
            parts.append(value)
        else:
            total = value if total is None else total.add_(value)
    return torch.cat(parts, output.index(row)) if total is None else total


def _cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of ``matrix`` [g, d, d] plus a ridge, and the ridge [g, 1].

    The ridge grows until rounding no longer makes the matrix indefinite. In float64 up to ``LARGE`` dimensions, above
    in float32; one copy of the matrix is made, and factorized in place.
    """
    dtype = torch.float64 if matrix.shape[-1] <= LARGE else torch.float32
    level = matrix.diagonal(dim1=-2, dim2=-1).to(dtype).mean(-1, keepdim=True).clamp_min(1e-30)
    for power in range(6):
        ridge = RIDGE * 10.0**power * level
        # LAPACK works on columns; the matrix is symmetric, so its transpose serves.
        factor = matrix.to(dtype, copy=True, memory_format=torch.contiguous_format).mT
        factor.diagonal(dim1=-2, dim2=-1).add_(ridge)
        info = torch.zeros(len(matrix), dtype=torch.int32)
        torch.linalg.cholesky_ex(factor, out=(factor, info))
        if not info.any():
            return factor, ridge
        del factor
    raise FloatingPointError("the second moments are not finite")


def _output_products(moments: Moments, m: Tensor) -> Tensor:
    """M (I (x) xx) M^T [g, f1, f1] in float64, with the ridge of a whitening, for M [g, f1, f2 d]."""
    groups, f1, _ = m.shape
    d = moments.xx.shape[-1]
    precise = m.double().reshape(groups, -1, d)
    ridge = RIDGE * moments.xx.diagonal(dim1=-2, dim2=-1).double().mean(-1).clamp_min(1e-30)[:, None, None]
    products = torch.zeros(groups, f1, f1, dtype=torch.float64)
    step = max(1, PIECE // (groups * d))
    for start in range(0, d, step):
        part = slice(start, start + step)
        columns = precise[..., part]
        images = precise @ moments.xx[..., part].double() + ridge * columns
        products += images.reshape(groups, f1, -1) @ columns.reshape(groups, f1, -1).mT
    return (products + products.mT) / 2


def least_squares_kernel(moments: Moments, kernel: Tensor) -> Tensor:
    """K* = yx xx^-1, leaning to the original ``kernel`` where xx has no variance. Shape and type of ``kernel``."""
    lower, ridge = _cholesky(moments.xx)
    right = moments.yx.to(lower.dtype) + ridge[..., None] * kernel.to(lower.dtype).reshape(moments.yx.shape)
    half = torch.linalg.solve_triangular(lower.mT, right, upper=True, left=False)
    solved: Tensor = torch.linalg.solve_triangular(lower, half, upper=False, left=False)
    return solved.reshape(kernel.shape).to(kernel.dtype)


class Fitter:
    """All ranks of one template on one layer: the whitening and the closed form are computed once."""

    def __init__(self, template: Structure, kernel: Tensor, moments: Moments | None) -> None:
        self._template = template
        self._moments = moments
        # With moments, the kernel need not stay beside what refining takes.
        self._error = moments.error if moments else partial(_weight_error, kernel)
        self._whitening: Whitening | None = None
        self._closed: Decomposition
        if moments and isinstance(template, KroneckerShape) and template.one_sided:
            self._closed = template.decompose(kernel, _output_products(moments, template.rearrange(kernel)))
        elif moments:
            self._whitening = Whitening(template.network(*(1,) * len(template.max_ranks)), moments)
            self._closed = template.decompose(self._whitening.kernel(kernel))
        else:
            self._closed = template.decompose(kernel)

    @property
    def spectra(self) -> tuple[Spectrum, ...]:
        """The spectra that the closed form cuts: of the whitened kernel where there are moments."""
        return self._closed.spectra

    def closed_form(self, *ranks: int) -> Fit:
        """The closed form at ``ranks``; without moments, that of the weights."""
        return self._result(self._template.network(*ranks), self._closed_factors(ranks))

    def closed_form_kernel(self, *ranks: int) -> Tensor:
        """The dense kernel of ``closed_form(*ranks)``, whose error has not been computed."""
        return self._template.network(*ranks).expand([t.float() for t in self._closed_factors(ranks)])

    def closed_form_error(self, *ranks: int) -> float:
        """The error of ``closed_form(*ranks)``; without moments, singular values alone tell that of optimal forms."""
        if self._moments is None and self._template.optimal:
            tail = self._closed.spectra[0].tail()
            return float(tail[ranks[0]] / tail[0].clamp_min(1e-30))
        return self.closed_form(*ranks).error

    def refined(self, start: Fit, iterations: int) -> Fit:
        """``start`` improved by at most ``iterations`` L-BFGS steps on the exact output error; never worse.

        A closed form that is optimal in an exact whitening stays as it is.
        """
        if self._moments is None or self._whitening is None:
            return start
        if self._whitening.exact and self._template.optimal:
            return start
        better = refine(start.network, start.tensors, self._moments, self._whitening, iterations)
        result = self._result(start.network, better)
        return result if result.error < start.error else start

    def _closed_factors(self, ranks: Ranks) -> list[Tensor]:
        tensors = self._closed.truncated(*ranks)
        if self._whitening is None:
            return tensors
        return [self._whitening.factor(i, t, inverse=True) for i, t in enumerate(tensors)]

    def _result(self, network: FactorNetwork, tensors: Sequence[Tensor]) -> Fit:
        fitted = balanced([t.detach() for t in tensors])
        return Fit(network, tuple(fitted), self._error(network.expand(fitted)))


def _weight_error(kernel: Tensor, other: Tensor) -> float:
    """Squared error of ``other`` relative to the squared norm of ``kernel``."""
    difference = (other - kernel.float()).double()
    return float(difference.square().sum() / kernel.double().square().sum().clamp_min(1e-30))


def refine(
    network: FactorNetwork, start: Sequence[Tensor], moments: Moments, whitening: Whitening, iterations: int
) -> list[Tensor]:
    """Minimises <K xx, K> / 2 - <K, yx> over the factors by L-BFGS in whitened coordinates."""
    whitened = [
        whitening.factor(i, t, inverse=False).detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        for i, t in enumerate(start)
    ]
    scale = 1.0 / max(moments.yy, 1e-30)
    optimiser: torch.optim.Optimizer = torch.optim.LBFGS(
        whitened, max_iter=iterations, history_size=HISTORY, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def plain() -> list[Tensor]:
        return [whitening.factor(i, t, inverse=True) for i, t in enumerate(whitened)]

    def closure() -> float:
        optimiser.zero_grad()
        kernel = network.expand(plain())
        k = kernel.detach().reshape(moments.yx.shape)
        product = k @ moments.xx
        value = (torch.dot(k.flatten(), product.flatten()) / 2 - torch.dot(k.flatten(), moments.yx.flatten())) * scale
        del k
        # The gradient with respect to K is known; only the factors' share is left to autograd.
        torch.autograd.backward(kernel, product.sub_(moments.yx).mul_(scale).reshape(kernel.shape))
        return float(value)

    optimiser.step(closure)
    with torch.no_grad():
        return plain()


def balanced(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same factors, float32, with equal norms: the scale between two factors is free."""
    norms = [float(t.norm()) for t in tensors]
    if min(norms) <= 0.0:
        return [t.float() for t in tensors]
    mean = math.exp(sum(math.log(n) for n in norms) / len(norms))
    return [(t * (mean / n)).float() for t, n in zip(tensors, norms, strict=True)]


def kernel_of(layer: Layer) -> Tensor:
    """A copy of the layer's kernel [F, C / groups, kh, kw], to fit factors to."""
    if layer.kernel is None:
        raise AssertionError(f"layer {layer.name} has no kernel although it is not frozen")
    return torch.from_numpy(np.array(layer.kernel))


def as_factorized(
    layer: Layer,
    fit: Fit,
    order: Sequence[int],
    forms: Mapping[str, tuple[str, ...]],
    bias: np.ndarray | None,
) -> Factorized:
    """The layer with the fitted factors, contracted in ``order``; an empty order is the one with the fewest MACs."""
    order = tuple(order) or fit.network.best_order(layer.input_size, layer.geometry)
    tensors = tuple(t.numpy() for t in fit.tensors)
    return Factorized(layer.name, layer.kind, fit.network, tensors, bias, order, layer.geometry, dict(forms))
