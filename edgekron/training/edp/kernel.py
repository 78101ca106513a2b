"""A layer's weight as a compressed-aware block: torch's parametrization of it, see ``edgekron.training.edp.blocks``.

The layer goes on to run as one convolution, of the product of the block's two layers: they have no activation between
them, so this is exact, and costs what the layer cost before, whatever the rank.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekron.modules.node_modules import OperatorModule

from .blocks import LowRankBlock, balanced, open_block

#: How a layer holds its kernel [F, C, kh, kw]: as it is, as [F, C], or as [C, F].
Layout = Literal["kernel", "rows", "columns"]


class AwareKernel(nn.Module):
    """The block of one weight. Its basis [r, C, kh, kw] and coefficients [F, r], the latter times ``slowness``, are
    parameters of the layer.

    ``columns`` [r] says which columns are alive. ``spread`` [r] is the standard deviation of each filter's response to
    the layer's inputs, and ``worth`` [r] the loss of the network's outputs without the filter, both for filters of norm
    one. A step on coefficients moves the kernel more than a step on the kernel would, by the square of the basis's
    norm; ``slowness``, the basis's largest singular value at first, takes that back.
    """

    def __init__(self, layout: Layout, covariance: Tensor | None, rank: int) -> None:
        super().__init__()
        self._layout, self._covariance = layout, covariance
        self.register_buffer("columns", torch.ones(rank, dtype=torch.uint8))
        self.register_buffer("spread", torch.ones(rank))
        self.register_buffer("worth", torch.ones(rank))
        self.register_buffer("slowness", torch.ones(()))
        self.columns: Tensor
        self.spread: Tensor
        self.worth: Tensor
        self.slowness: Tensor

    def forward(self, basis: Tensor, coefficients: Tensor) -> Tensor:
        kernel = (coefficients * (self.columns / self.slowness)) @ basis.flatten(1)
        return self.weight_of(kernel.reshape(len(coefficients), *basis.shape[1:]))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Basis and coefficients of a weight."""
        block = open_block(self.kernel_of(weight), self._covariance)
        self.slowness.copy_(torch.linalg.matrix_norm(block.basis.flatten(1), 2).clamp_min(1.0))
        return block.basis.contiguous(), (block.coefficients * self.slowness).contiguous()

    def weight_of(self, kernel: Tensor) -> Tensor:
        """A kernel [n, C, kh, kw] as the layer holds it."""
        if self._layout == "kernel":
            return kernel
        return kernel[:, :, 0, 0] if self._layout == "rows" else kernel[:, :, 0, 0].mT

    def kernel_of(self, weight: Tensor) -> Tensor:
        """A weight, as the layer holds it, as a kernel [n, C, kh, kw]."""
        if self._layout == "kernel":
            return weight
        return (weight if self._layout == "rows" else weight.mT)[:, :, None, None]


class AwareLayer:
    """An operator of a ``GraphModule`` whose weight has become a block; ``covariance`` [F, F] is of its outputs."""

    def __init__(self, operator: OperatorModule, layout: Layout, covariance: Tensor | None) -> None:
        kernel = AwareKernel(layout, None, 1).kernel_of(cast(Tensor, operator.weight))
        rank = min(kernel.shape[0], kernel[0].numel())
        self.operator, self.kernel = operator, AwareKernel(layout, covariance, rank).to(kernel.device)
        parametrize.register_parametrization(operator, "weight", self.kernel)

    @property
    def basis(self) -> nn.Parameter:
        """[r, C, kh, kw]"""
        return cast(nn.Parameter, self.parameters.original0)

    @property
    def coefficients(self) -> nn.Parameter:
        """[F, r], times the kernel's ``slowness``."""
        return cast(nn.Parameter, self.parameters.original1)

    def block(self) -> LowRankBlock:
        """The block, with columns that are dead as zeros."""
        return LowRankBlock(
            self.basis.detach(), self.coefficients.detach() * (self.kernel.columns / self.kernel.slowness)
        )

    def deviations(self) -> Tensor:
        """Standard deviation [r] of the responses of the basis, one for each filter."""
        return self.basis.detach().flatten(1).norm(dim=1) * self.kernel.spread

    def output_deviations(self) -> Tensor:
        """Standard deviation [F] of the block's outputs if its responses are uncorrelated, as they are at first."""
        return (self.block().coefficients * self.deviations()).norm(dim=1)

    @torch.no_grad()
    def retract(self) -> None:
        """Columns of coefficients back to norm one after a step of the optimiser, which has made them longer.

        The basis does not take the scale up: its own step went along the same slope, and where a normalisation takes
        the scale away, a basis that takes up all growth of the columns would grow without end.
        """
        self.coefficients.mul_(self.kernel.slowness / self.coefficients.norm(dim=0).clamp_min(1e-30))

    @torch.no_grad()
    def balance(self) -> None:
        """Columns of coefficients back to norm one, their scale to the basis: the same kernel."""
        block = balanced(LowRankBlock(self.basis, self.coefficients / self.kernel.slowness))
        self.basis.copy_(block.basis)
        self.coefficients.copy_(block.coefficients * self.kernel.slowness)

    @torch.no_grad()
    def responses(self, x: Tensor) -> Tensor:
        """Standard deviation [r] of the basis's responses to inputs ``x``, for filters of norm one."""
        y = self.made_of(x)
        norms = self.basis.flatten(1).norm(dim=1).clamp_min(1e-30)
        return y.transpose(0, 1).flatten(1).std(1, correction=0) / norms

    @torch.no_grad()
    def made_of(self, x: Tensor) -> Tensor:
        """The basis's responses to inputs ``x``, with r channels."""
        return cast(Tensor, self.operator.function(x, self.kernel.weight_of(self.basis)))

    @property
    def parameters(self) -> nn.Module:
        """The module that holds basis and coefficients, as ``original0`` and ``original1``."""
        return cast(nn.ModuleDict, self.operator.parametrizations)["weight"]
