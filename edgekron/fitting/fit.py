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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork
from edgekron.graph import Factorized, Layer
from edgekron.structures import Decomposition, KroneckerShape, Ranks, Spectrum, Structure

from .sampled import AnyMoments
from .whitening import Whitening

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


class Fitter:
    """All ranks of one template on one layer: the whitening and the closed form are computed once."""

    def __init__(self, template: Structure, kernel: Tensor, moments: AnyMoments | None) -> None:
        self._template = template
        self._moments = moments
        # With moments, the kernel need not stay beside what refining takes.
        self._error = moments.error if moments else partial(_weight_error, kernel)
        self._whitening: Whitening | None = None
        self._closed: Decomposition
        if moments and isinstance(template, KroneckerShape) and template.one_sided:
            self._closed = template.decompose(kernel, moments.output_products(template.rearrange(kernel)))
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
    network: FactorNetwork, start: Sequence[Tensor], moments: AnyMoments, whitening: Whitening, iterations: int
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
        value, gradient = moments.gradient(kernel)
        # The gradient with respect to K is known; only the factors' share is left to autograd.
        torch.autograd.backward(kernel, gradient.mul_(scale))
        return float(value * scale)

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
