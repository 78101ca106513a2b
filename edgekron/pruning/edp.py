"""EDP's algebra: low rank and sparse channels in one training stage, then pruning and merging.

Source: Ruan et al., *EDP: An Efficient Decomposition and Pruning Scheme for Convolutional Neural Network Compression*
(IEEE TNNLS 2021). A layer W [F, C, kh, kw] becomes a compressed-aware block of two layers without an activation between
them, W = A B: a basis B [r, C, kh, kw] and a 1x1 layer of coefficients A [F, r]. Columns of A that are zero drop
filters of the basis (the rank), rows that are zero drop output channels. A step on the loss is followed by the proximal
step of a sum of norms, which makes such zeros:

    a <- max(0, 1 - step * strength / |a|) a        for each row, then for each column

The penalty could be had for nothing by (A / t, t B), so after each step every filter of the basis is scaled to norm
one, and its column of A by what it had.

After training, rows and columns that are zero go, and the block stays a pair only where that is cheaper than the one
layer they multiply out to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """A compressed-aware block: ``basis`` [r, C, kh, kw] and ``coefficients`` [F, r]."""

    basis: Tensor
    coefficients: Tensor

    def kernel(self) -> Tensor:
        """The kernel [F, C, kh, kw] of both layers together."""
        return torch.einsum("fr,rchw->fchw", self.coefficients, self.basis)


def open_block(kernel: Tensor) -> Block:
    """The block of ``kernel`` [F, C, kh, kw] by its SVD, with a basis of norm one; exact."""
    f = kernel.shape[0]
    u, s, vh = torch.linalg.svd(kernel.reshape(f, -1), full_matrices=False)
    return Block(vh.reshape(-1, *kernel.shape[1:]), u * s)


def proximal(block: Block, *, rows: float, columns: float) -> Block:
    """The block after the proximal step of ``rows`` * sum |A_f| and ``columns`` * sum |A_:r|, the basis of norm one.

    ``rows`` and ``columns`` are the learning rate times the strength of each penalty.
    """
    norms = block.basis.flatten(1).norm(dim=1)
    held = norms.clamp_min(torch.finfo(norms.dtype).tiny)
    basis = block.basis / held[:, None, None, None]
    coefficients = block.coefficients * norms
    for axis, strength in ((1, rows), (0, columns)):
        length = coefficients.norm(dim=axis, keepdim=True)
        coefficients = coefficients * (1 - strength / length.clamp_min(1e-30)).clamp_min(0)
    return Block(basis, coefficients)


def worth_a_pair(channels: int, window: int, outputs: int, rank: int) -> bool:
    """Whether a basis of ``rank`` filters over ``channels`` of ``window`` taps, and its 1x1 layer to ``outputs``, has
    fewer MACs than the one layer they multiply out to: r < C k^2 m / (C k^2 + m).
    """
    dense = channels * window
    return rank * (dense + outputs) < dense * outputs


def prune_and_merge(block: Block) -> tuple[Block | Tensor, Tensor]:
    """Without the rows and columns that are zero: a pair, or one kernel where that is cheaper; and which outputs stay.

    A dropped output is one whose value is the bias alone: what follows has to lose it, too. One output stays in any
    case.
    """
    rows = block.coefficients.abs().sum(1) > 0
    columns = block.coefficients.abs().sum(0) > 0
    rows[0] |= ~rows.any()
    left = Block(block.basis[columns], block.coefficients[rows][:, columns])
    rank, c, h, w = left.basis.shape
    if worth_a_pair(c, h * w, len(left.coefficients), rank):
        return left, rows
    return left.kernel(), rows
