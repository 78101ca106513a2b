"""EDP's algebra: low rank and sparse channels in one training stage, then pruning and merging.

Source: Ruan et al., *EDP: An Efficient Decomposition and Pruning Scheme for Convolutional Neural Network Compression*
(IEEE TNNLS 2021). A layer W [F, C, kh, kw] becomes a compressed-aware block of two layers without an activation between
them, W = A B: a basis B [r, C, kh, kw] and a 1x1 layer of coefficients A [F, r]. Columns of A that are zero drop
filters of the basis (the rank), rows that are zero drop output channels. A step on the loss is followed by the proximal
step of a weighted sum of the logarithms of sizes, which makes such zeros: a row or column of size s, by its penalty t,
becomes

    (1 + sqrt(1 - 4 t / s^2)) / 2

times what it was, and zero below s = 2 sqrt(t). A sum of norms would take the same from all, and most of what stays
would be lost with what goes; a logarithm takes t / s, and spares what is large. (Which penalty EDP has is not told in
any text at hand; the logarithm is one of Hinge's, Li et al., CVPR 2020, whose blocks are the same.)

The penalty could be had for nothing by (A / t, t B), so the scale between the two is fixed: after
each step every column of A is scaled to norm one, and its filter by what it had. The scale belongs in the basis: a step
on it then moves W as a step on W itself would, where a step on a basis of norm one would move W by as much more as the
square of A's norm, and diverge.

After training, rows and columns that are zero go, and the block stays a pair only where that is cheaper than the one
layer they multiply out to.
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

    It is the kernel's SVD; with the ``covariance`` [F, F] of the layer's outputs, their principal components: then each
    column stands for responses that are uncorrelated with the others. A kernel with more outputs than inputs always
    gets its SVD, whose rank is that of the inputs.
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
    """What the proximal step multiplies each group with, by its size and its penalty times the learning rate."""
    left = 1 - 4 * penalties / sizes.square().clamp_min(1e-30)
    return torch.where(left >= 0, (1 + left.clamp_min(0).sqrt()) / 2, 0.0)


def worth_a_pair(channels: int, window: int, outputs: int, rank: int) -> bool:
    """Whether a basis of ``rank`` filters over ``channels`` of ``window`` taps, and its 1x1 layer to ``outputs``, has
    fewer MACs than the one layer they multiply out to: r < C k^2 m / (C k^2 + m).
    """
    dense = channels * window
    return rank * (dense + outputs) < dense * outputs


def merged(block: LowRankBlock) -> LowRankBlock | Tensor:
    """The block without columns that are zero: a pair, or the one kernel [F, C, kh, kw] where that is cheaper."""
    columns = (block.coefficients.abs().sum(0) > 0) & (block.basis.flatten(1).abs().sum(1) > 0)
    rank, (_, c, h, w) = int(columns.sum()), block.basis.shape
    if rank and worth_a_pair(c, h * w, len(block.coefficients), rank):
        return LowRankBlock(block.basis[columns], block.coefficients[:, columns])
    return block.kernel()
