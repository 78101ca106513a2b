"""EDP's algebra: low rank and sparse channels in one training stage, then pruning and merging.

Source: Ruan et al., *EDP: An Efficient Decomposition and Pruning Scheme for Convolutional Neural Network Compression*
(IEEE TNNLS 2021). A layer W [F, C, kh, kw] becomes a compressed-aware block of two layers without an activation between
them, W = A B: a basis B [r, C, kh, kw] and a 1x1 layer of coefficients A [F, r]. Columns of A that are zero drop
filters of the basis (the rank), rows that are zero drop output channels. A step on the loss is followed by the proximal
step of a weighted sum of the logarithms of sizes, which makes such zeros. A row or column of size s and penalty t is
multiplied by

    (1 + sqrt(1 - 4 t / s^2)) / 2

and becomes zero below s = 2 sqrt(t). A penalty on the sum of norms would shrink all rows and columns by the same
length, those that stay with those that go; the logarithm shrinks by t / s, and spares the large ones. (No text at hand
tells which penalty EDP has; the logarithm is one of Hinge's, Li et al., CVPR 2020, whose blocks are the same.)

The pair (A / t, t B) would evade the penalty, so the scale between A and B is fixed: after each step every column of A
is scaled to norm one, and its filter takes the scale up. The scale belongs in the basis: a step on the basis then moves
W as a step on W itself would. With a basis of norm one, a step would move W by as much more as the square of A's norm,
and diverge.

After training, rows and columns that are zero go, and the block stays a pair only where the pair is cheaper than the
one layer that the two multiply out to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRankBlock:
    """A compressed-aware block: ``basis`` [r, C, kh, kw] and ``coefficients`` [F, r]."""

    basis: Tensor
    coefficients: Tensor

    def kernel(self) -> Tensor:
        """The kernel [F, C, kh, kw] of both layers together."""
        return torch.einsum("fr,rchw->fchw", self.coefficients, self.basis)


def open_block(kernel: Tensor, covariance: Tensor | None = None) -> LowRankBlock:
    """The block of ``kernel`` [F, C, kh, kw], exact, with orthonormal columns of coefficients.

    Without a ``covariance`` the block is the kernel's SVD. With the covariance [F, F] of the layer's outputs, columns
    are the outputs' principal components, so the responses of different columns are uncorrelated. A kernel with more
    outputs than inputs always gets its SVD, which has no more columns than there are inputs.
    """
    f = kernel.shape[0]
    matrix = kernel.reshape(f, -1)
    if covariance is None or f > matrix.shape[1]:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return LowRankBlock((s[:, None] * vh).reshape(-1, *kernel.shape[1:]), u)
    u = torch.linalg.eigh(covariance.double())[1].to(kernel.dtype).flip(1)
    return LowRankBlock((u.mT @ matrix).reshape(kernel.shape), u)


def balanced(block: LowRankBlock) -> LowRankBlock:
    """The same kernel with columns of norm one."""
    norms = block.coefficients.norm(dim=0)
    held = norms.clamp_min(torch.finfo(norms.dtype).tiny)
    return LowRankBlock(block.basis * norms[:, None, None, None], block.coefficients / held)


def shrinkage(sizes: Tensor, penalties: Tensor) -> Tensor:
    """The factors of the proximal step for groups of these sizes, with penalties times the learning rate."""
    left = 1 - 4 * penalties / sizes.square().clamp_min(1e-30)
    return torch.where(left >= 0, (1 + left.clamp_min(0).sqrt()) / 2, 0.0)


def worth_a_pair(channels: int, window: int, outputs: int, rank: int) -> bool:
    """Whether a basis of ``rank`` filters over ``channels`` of ``window`` taps, and its 1x1 layer to ``outputs``, has
    fewer MACs than the one layer that the two multiply out to: r < C k^2 m / (C k^2 + m).
    """
    dense = channels * window
    return rank * (dense + outputs) < dense * outputs


def merged(block: LowRankBlock) -> LowRankBlock | Tensor:
    """The block without columns that are zero, or its kernel [F, C, kh, kw] where one layer is cheaper than a pair."""
    columns = (block.coefficients.abs().sum(0) > 0) & (block.basis.flatten(1).abs().sum(1) > 0)
    rank, (_, c, h, w) = int(columns.sum()), block.basis.shape
    if rank and worth_a_pair(c, h * w, len(block.coefficients), rank):
        return LowRankBlock(block.basis[columns], block.coefficients[:, columns])
    return block.kernel()
