"""Factorized layers: ordinary trainable modules whose parameters are the factors of a ``FactorNetwork``.

``FactorizedConv2d``, ``FactorizedConvTranspose2d``, their one-dimensional kin and ``FactorizedLinear`` are drop-in
replacements of the layers of ``nn``; they run the same steps as the exported files (see ``edgekron.algebra.lowering``)
and never build the dense kernel, except for a form ``dense``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, cast

import torch.nn.functional as F
from torch import Tensor, nn

from edgekron.algebra import FactorNetwork, Geometry, Padding, Pair, StructureError
from edgekron.algebra.lowering import default_forms, lower
from edgekron.algebra.steps import Bias, Conv, ConvTranspose, MatMul, Shuffle, Step

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def run_steps(steps: Sequence[Step], x: Tensor, factors: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    """Applies lowered steps to [N, C, H, W]."""
    for step in steps:
        match step:
            case Shuffle():
                n, c, h, w = x.shape
                order = (0, *(i + 1 for i in step.order), len(step.order) + 1, len(step.order) + 2)
                x = x.reshape(n, *step.shape, h, w).permute(order).reshape(n, c, h, w)
            case Conv():
                x = _conv(step, x, step.weight.evaluate(factors), bias)
            case ConvTranspose():
                x = _conv_transpose(step, x, step.weight.evaluate(factors), bias)
            case MatMul():
                n, c, h, w = x.shape
                y = step.weight.evaluate(factors) @ x.reshape(n, c // step.trailing, -1)
                x = y.reshape(n, -1, h, w)
            case Bias():
                x = x + step.order.apply(cast(Tensor, bias)).view(1, -1, 1, 1)
    return x


def _conv(step: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n, c, h, w = x.shape
    if step.fold > 1:
        x = x.reshape(n * step.fold, c // step.fold, h, w)
    (top, bottom), (left, right) = step.geometry.padding
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    vector = step.bias.apply(cast(Tensor, bias)) if step.bias else None
    geometry = step.geometry
    y = F.conv2d(x, weight, vector, geometry.stride, (top, left), geometry.dilation, step.groups)
    return y.reshape(n, -1, *y.shape[2:]) if step.fold > 1 else y


def _conv_transpose(step: ConvTranspose, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n, c, h, w = x.shape
    if step.fold > 1:
        x = x.reshape(n * step.fold, c // step.fold, h, w)
    window = (step.weight.shape[2], step.weight.shape[3])
    height, width = step.geometry.output_size((h, w), window)
    (top, below), (left, right) = step.geometry.crop(window)
    # A pixel of zeros behind the image makes room for zeros behind the output; what is too much is cut.
    x = F.pad(x, (0, int(right < 0), 0, int(below < 0)))
    vector = step.bias.apply(cast(Tensor, bias)) if step.bias else None
    y = F.conv_transpose2d(
        x, weight, vector, step.geometry.upsample, groups=step.groups, dilation=step.geometry.dilation
    )
    y = y[:, :, top : top + height, left : left + width]
    return y.reshape(n, -1, height, width)


class _Factorized(nn.Module):
    """Factors as parameters, and the steps that contract them."""

    def __init__(
        self,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None,
        *,
        order: Sequence[int] | None,
        geometry: Geometry,
        forms: Sequence[str] | None,
    ) -> None:
        super().__init__()
        for index, factor in enumerate(factors):
            if tuple(factor.shape) != network.factor_shape(index):
                raise StructureError(
                    f"factor {index} of {network.factors!r} has shape {tuple(factor.shape)}, "
                    f"not {network.factor_shape(index)}"
                )
        self.network = network
        # Any size will do: the order that is cheapest hardly ever depends on it.
        self.order = tuple(order) if order is not None else network.best_order((32, 32), geometry)
        self.factors = nn.ParameterList(nn.Parameter(f.detach().clone()) for f in factors)
        self.bias = nn.Parameter(bias.detach().clone()) if bias is not None else None
        self.forms = tuple(forms) if forms else default_forms(network.stages(self.order, geometry), "torch")
        self._steps = lower(network, self.order, geometry, self.forms, bias=bias is not None)

    def kernel(self) -> Tensor:
        """The dense kernel [F, C / groups, kh, kw] that the factors stand for."""
        return cast(Tensor, self.network.expand(list(self.factors)))

    def extra_repr(self) -> str:
        sizes = ", ".join(f"{axis}={size}" for axis, size in self.network.sizes.items())
        return f"{self.network.factors!r}, {sizes}, order={self.order}, forms={self.forms}"


class FactorizedConv2d(_Factorized):
    """A 2-D convolution by a factor network. [N, C, H, W] -> [N, F, H', W'].

    ``padding`` is ((top, bottom), (left, right)); with a ``padding_mode`` other than "zeros" the input is padded
    once, before the first stage. Raises ``StructureError`` when factors and network disagree.
    """

    def __init__(
        self,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Padding = ((0, 0), (0, 0)),
        dilation: Pair = (1, 1),
        padding_mode: PaddingMode = "zeros",
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        inside = padding if padding_mode == "zeros" else ((0, 0), (0, 0))
        self_geometry = Geometry(stride, dilation, inside)
        super().__init__(network, factors, bias, order=order, geometry=self_geometry, forms=forms)
        self.geometry = Geometry(stride, dilation, padding)
        self.padding_mode = padding_mode

    @classmethod
    def replacing(
        cls,
        conv: nn.Conv2d | nn.Conv1d,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> Self:
        """The factorized layer in place of ``conv``: its stride, dilation, padding and mode, and its bias if none is
        given.

        A 1-D convolution is one of an image of a single row. Raises ``StructureError`` when the network's kernel or
        groups are not those of ``conv``.
        """
        # What a row adds in front: a window and a step of one.
        one = (1,) * (2 - len(conv.kernel_size))
        shape = (*conv.weight.shape[:2], *one, *conv.weight.shape[2:])
        if network.kernel_shape != shape or network.total("g") != conv.groups:
            raise StructureError(
                f"{network.factors!r} makes a kernel {network.kernel_shape} in {network.total('g')} groups; the layer "
                f"has {shape} in {conv.groups}"
            )
        return cls(
            network,
            factors,
            conv.bias if bias is None else bias,
            stride=cast(Pair, (*one, *conv.stride)),
            padding=conv_padding(conv),
            dilation=cast(Pair, (*one, *conv.dilation)),
            padding_mode=conv.padding_mode,
            order=order,
            forms=forms,
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            (top, bottom), (left, right) = self.geometry.padding
            x = F.pad(x, (left, right, top, bottom), mode=self.padding_mode)
        return run_steps(self._steps, x, list(self.factors), self.bias)


class FactorizedConvTranspose2d(_Factorized):
    """A 2-D transposed convolution by a factor network. [N, C, H, W] -> [N, F, H', W'].

    ``network`` makes the kernel [F, C / groups, kh, kw] of the equivalent ordinary convolution of an image with zeros
    between its pixels (see ``edgekron.algebra``), and ``geometry`` is the one of that convolution.
    """

    def __init__(
        self,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        geometry: Geometry,
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, factors, bias, order=order, geometry=geometry, forms=forms)
        self.geometry = geometry

    @classmethod
    def replacing(
        cls,
        conv: nn.ConvTranspose2d | nn.ConvTranspose1d,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> Self:
        """The factorized layer in place of ``conv``: its stride, dilation and paddings, and its bias if none is given.

        Raises ``StructureError`` when the network's kernel or groups are not those of ``conv``.
        """
        one = (1,) * (2 - len(conv.kernel_size))
        shape = (conv.out_channels, conv.in_channels // conv.groups, *one, *conv.kernel_size)
        if network.kernel_shape != shape or network.total("g") != conv.groups:
            raise StructureError(
                f"{network.factors!r} makes a kernel {network.kernel_shape} in {network.total('g')} groups; the layer "
                f"has {shape} in {conv.groups}"
            )
        spans = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        pads = [
            (span - cast(int, cut), span - cast(int, cut) + extra)
            for span, cut, extra in zip(spans, conv.padding, conv.output_padding, strict=True)
        ]
        geometry = Geometry(
            dilation=cast(Pair, (*one, *conv.dilation)),
            padding=cast(Padding, ((0, 0), *pads)[-2:]),
            upsample=cast(Pair, (*one, *conv.stride)),
        )
        bias = conv.bias if bias is None else bias
        return cls(network, factors, bias, geometry=geometry, order=order, forms=forms)

    def forward(self, x: Tensor) -> Tensor:
        return run_steps(self._steps, x, list(self.factors), self.bias)


class FactorizedConvTranspose1d(FactorizedConvTranspose2d):
    """A 1-D transposed convolution, as one of images of a single row. [N, C, L] -> [N, F, L']."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(-2)).squeeze(-2)


class FactorizedConv1d(FactorizedConv2d):
    """A 1-D convolution by a factor network without h, as one of images of a single row. [N, C, L] -> [N, F, L']."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(-2)).squeeze(-2)


class FactorizedLinear(_Factorized):
    """A fully connected layer by a factor network without h and w. [*, C] -> [*, F]."""

    def __init__(
        self,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        if network.kernel_shape[2:] != (1, 1) or network.total("g") != 1:
            raise StructureError(f"{network.factors!r} has a window or groups; a fully connected layer has none")
        super().__init__(network, factors, bias, order=order, geometry=Geometry(), forms=forms)

    def forward(self, x: Tensor) -> Tensor:
        y = run_steps(self._steps, x.reshape(-1, x.shape[-1], 1, 1), list(self.factors), self.bias)
        return y.reshape(*x.shape[:-1], -1)


def conv_padding(conv: nn.Conv2d | nn.Conv1d) -> Padding:
    """((top, bottom), (left, right)) of a convolution; "same" puts the odd pixel at the end, as torch does."""
    if conv.padding == "valid":
        return (0, 0), (0, 0)
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(cast(int, size), cast(int, size)) for size in conv.padding]
    return cast(Padding, ((0, 0), *pairs)[-2:])
