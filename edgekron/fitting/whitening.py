"""The whitening of a structure's factors: L = (x) L_t, with a Kronecker product of S_t = L_t L_t^T near to xx."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import torch
from torch import Tensor

from edgekron.algebra import FactorNetwork
from edgekron.memory import give_back

from .moments import PIECE
from .roots import Root, Triangular, cholesky
from .sampled import AnyMoments, SampledMoments


class Whitening:
    """L = (x) L_t for one way of sharing the input axes among factors, and the inverse of each L_t.

    One whitening serves all ranks of a template: only the axes c, h, w of each factor matter.
    """

    def __init__(self, network: FactorNetwork, moments: AnyMoments) -> None:
        self._network = network
        self._input = [a for kind in "chw" for a in network.parts(kind)]
        self._shares = [[a for a in axes if a in self._input] for axes in network.axes]
        sizes = [network.sizes[a] for a in self._input]
        places = [[self._input.index(a) for a in share] for share in self._shares]
        self._roots: list[Root]
        if isinstance(moments, SampledMoments):
            self._roots = moments.roots(sizes, places)
        else:
            matrices = _nearest_kronecker(moments.xx, sizes, places)
            give_back()
            self._roots = [Triangular(cholesky(s)[0].float()) for s in matrices]

    @property
    def exact(self) -> bool:
        """Whether the error is the plain one of K L, not only nearly: one factor has all input axes."""
        return sum(root.size > 1 for root in self._roots) <= 1

    def kernel(self, kernel: Tensor) -> Tensor:
        """K L for a kernel [F, C / groups, kh, kw]."""
        shape = [self._network.sizes[a] for a in self._input]
        view = kernel.reshape(self._roots[0].groups, -1, *shape)
        for share, root in zip(self._shares, self._roots, strict=True):
            places = [2 + self._input.index(a) for a in share]
            view = self._multiply(view.float(), places, root)
        return view.reshape(kernel.shape)

    @staticmethod
    def _multiply(view: Tensor, axes: list[int], root: Root, *, inverse: bool = False) -> Tensor:
        """Multiplies the joint ``axes`` of ``view`` [g, ...] from the right by ``root`` or its inverse."""
        if not axes:
            scale = root.times(torch.ones(root.groups, 1, 1), inverse=False).reshape(-1, *[1] * (view.ndim - 1))
            return view / scale if inverse else view * scale
        rest = [i for i in range(1, view.ndim) if i not in axes]
        order = [0, *rest, *axes]
        moved = view.permute(order)
        rows = moved.reshape(root.groups, -1, root.size)
        product = root.times(rows, inverse=inverse)
        back = [order.index(i) for i in range(view.ndim)]
        return product.reshape(moved.shape).permute(back)

    def factor(self, index: int, tensor: Tensor, *, inverse: bool) -> Tensor:
        """One factor times L_t, or (inverse) a whitened factor back to a plain one."""
        axes = self._network.axes[index]
        with_group = "g" in axes
        view = (tensor if with_group else tensor[None]).float()
        root = self._roots[index]
        if not with_group and root.groups > 1:
            # A factor that all groups share is whitened by their mean.
            root = root.shared()
        offset = 0 if with_group else 1
        places = [axes.index(a) + offset for a in self._shares[index]]
        moved = self._multiply(view, places, root, inverse=inverse)
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
