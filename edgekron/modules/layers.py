"""Factorized layers: ordinary trainable modules whose parameters are the factors of a ``FactorNetwork``.

``FactorizedConv2d``, ``FactorizedConvTranspose2d``, their one-dimensional kin and ``FactorizedLinear`` are drop-in
replacements of the layers of ``nn``. They run the steps of the exported files (see ``edgekron.algebra.lowering``), and
build the dense kernel only in the form "dense" of a whole layer. ``factorized_layer`` makes the torch layer of a layer
of a hub.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekron.algebra import FactorNetwork, Geometry, Padding, Pair, StructureError
from edgekron.algebra.lowering import WHOLE, default_forms, lower
from edgekron.algebra.steps import Bias, Conv, ConvTranspose, MatMul, Shuffle, Step
from edgekron.graph import Factorized

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Convolution = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d

#: Stride and dilation of one, no padding.
_PLAIN = Geometry()


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


class FactorizedLayer(nn.Module):
    """Factors as parameters, and the steps that contract them.

    ``order`` is the order of contraction, by default the cheapest one. ``forms`` names the form of each stage, or one
    form of the whole layer; by default each stage has its fastest. Raises ``StructureError`` when factors and network
    disagree.
    """

    def __init__(
        self,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        geometry: Geometry = _PLAIN,
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        for index, factor in enumerate(factors):
            if tuple(factor.shape) != network.factor_shape(index):
                raise StructureError(
                    f"factor {index} of {network.factors!r} has shape {tuple(factor.shape)}, "
                    f"not {network.factor_shape(index)}"
                )
        self.network, self.geometry = network, geometry
        # Any size will do: the order that is cheapest hardly ever depends on it.
        self.order = tuple(order) if order is not None else network.best_order((32, 32), geometry)
        self.factors = nn.ParameterList(nn.Parameter(f.detach().clone()) for f in factors)
        self.bias = nn.Parameter(bias.detach().clone()) if bias is not None else None
        self.forms = tuple(forms) if forms else default_forms(network.stages(self.order, geometry), "torch")
        self._steps = lower(network, self.order, geometry, self.forms, bias=bias is not None)

    def forward(self, x: Tensor) -> Tensor:
        return run_steps(self._steps, x, list(self.factors), self.bias)

    def kernel(self) -> Tensor:
        """The dense kernel [F, C / groups, kh, kw] that the factors stand for."""
        return cast(Tensor, self.network.expand(list(self.factors)))

    def extra_repr(self) -> str:
        sizes = ", ".join(f"{axis}={size}" for axis, size in self.network.sizes.items())
        return f"{self.network.factors!r}, {sizes}, order={self.order}, forms={self.forms}"


class FactorizedConv2d(FactorizedLayer):
    """A 2-D convolution by a factor network. [N, C, H, W] -> [N, F, H', W'].

    With a ``padding_mode`` other than "zeros" the input is padded once, before the first stage.
    """

    def __init__(
        self,
        network: FactorNetwork,
        factors: Sequence[Tensor],
        bias: Tensor | None = None,
        *,
        geometry: Geometry = _PLAIN,
        padding_mode: PaddingMode = "zeros",
        order: Sequence[int] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        inside = geometry if padding_mode == "zeros" else replace(geometry, padding=_PLAIN.padding)
        super().__init__(network, factors, bias, geometry=inside, order=order, forms=forms)
        self.geometry, self.padding_mode = geometry, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            (top, bottom), (left, right) = self.geometry.padding
            x = F.pad(x, (left, right, top, bottom), mode=self.padding_mode)
        return super().forward(x)


class FactorizedConv1d(FactorizedConv2d):
    """A 1-D convolution by a factor network without h, as one of images of a single row. [N, C, L] -> [N, F, L']."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(-2)).squeeze(-2)


class FactorizedConvTranspose2d(FactorizedLayer):
    """A 2-D transposed convolution by a factor network. [N, C, H, W] -> [N, F, H', W'].

    The network makes the kernel [F, C / groups, kh, kw] of the equivalent ordinary convolution, on an image with zeros
    between its pixels (see ``edgekron.algebra``); ``geometry`` belongs to that convolution too.
    """


class FactorizedConvTranspose1d(FactorizedConvTranspose2d):
    """A 1-D transposed convolution, as one of images of a single row. [N, C, L] -> [N, F, L']."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(-2)).squeeze(-2)


class FactorizedLinear(FactorizedLayer):
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
        super().__init__(network, factors, bias, order=order, forms=forms)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1], 1, 1)).reshape(*x.shape[:-1], -1)


def factorized_layer(factorized: Factorized, replaced: Convolution | nn.Linear | None = None) -> FactorizedLayer:
    """The torch layer of ``factorized``, its factors scaled to equal norms.

    The scales cancel, so the layer is the same, and none of its factors learns faster than the others. Where the plan
    has the whole kernel expanded for every target, the torch layer expands it too.

    ``replaced`` is a layer of the user's own module. The new layer then takes the place of ``replaced``: its kind, its
    stride, padding and padding mode (the graph may have merged a pad of the module's ``forward`` into the layer), its
    bias where the graph has none in the layer, its type, its device, and whether it is being trained.
    """
    tensors = [torch.tensor(t) for t in factorized.tensors]
    norms = [float(t.norm()) / math.sqrt(t.numel()) for t in tensors]
    bias = None if factorized.bias is None else torch.tensor(factorized.bias)
    if replaced is not None:
        tensors = [t.to(replaced.weight) for t in tensors]
        bias = replaced.bias if bias is None else bias.to(replaced.weight)
    if min(norms) > 0:
        level = math.exp(sum(map(math.log, norms)) / len(norms))
        tensors = [t * (level / norm) for t, norm in zip(tensors, norms, strict=True)]
    layer = _placed(factorized, tensors, bias, replaced)
    return layer if replaced is None else layer.train(replaced.training)


def _placed(
    factorized: Factorized, tensors: Sequence[Tensor], bias: Tensor | None, replaced: Convolution | nn.Linear | None
) -> FactorizedLayer:
    """The layer of ``tensors``, of the kind and with the geometry of ``replaced``, else with those of the graph."""
    network, order = factorized.network, factorized.order
    chosen = [form for forms in factorized.forms.values() for form in forms]
    forms = ("dense",) if chosen and all(form in WHOLE for form in chosen) else None
    if isinstance(replaced, nn.Linear) or (replaced is None and factorized.kind == "linear"):
        return FactorizedLinear(network, tensors, bias, order=order, forms=forms)
    geometry = factorized.geometry if replaced is None else geometry_of(replaced)
    rows = isinstance(replaced, nn.Conv1d | nn.ConvTranspose1d)
    if geometry.transposed:
        transposed = FactorizedConvTranspose1d if rows else FactorizedConvTranspose2d
        return transposed(network, tensors, bias, geometry=geometry, order=order, forms=forms)
    mode = "zeros" if replaced is None else replaced.padding_mode
    plain = FactorizedConv1d if rows else FactorizedConv2d
    return plain(network, tensors, bias, geometry=geometry, padding_mode=mode, order=order, forms=forms)


def geometry_of(convolution: Convolution) -> Geometry:
    """The geometry of a convolution of torch; a 1-D one is a convolution of an image of a single row.

    A transposed convolution gives the geometry of the equivalent ordinary one (see ``edgekron.algebra``). A padding of
    "same" has its odd pixel at the end, as in torch.
    """
    # What a row adds in front: a stride and a dilation of one, no padding.
    one = (1,) * (2 - len(convolution.kernel_size))
    stride, dilation = cast(Pair, (*one, *convolution.stride)), cast(Pair, (*one, *convolution.dilation))
    spans = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
    if isinstance(convolution, nn.ConvTranspose1d | nn.ConvTranspose2d):
        cuts = cast(tuple[int, ...], convolution.padding)
        extra = zip(spans, cuts, convolution.output_padding, strict=True)
        pads = [(span - cut, span - cut + more) for span, cut, more in extra]
        return Geometry(dilation=dilation, padding=_of_image(pads), upsample=stride)
    if convolution.padding == "valid":
        pads = [(0, 0) for _ in spans]
    elif convolution.padding == "same":
        pads = [(span // 2, span - span // 2) for span in spans]
    else:
        pads = [(size, size) for size in cast(tuple[int, ...], convolution.padding)]
    return Geometry(stride, dilation, _of_image(pads))


def _of_image(pads: Sequence[Pair]) -> Padding:
    """Padding along (h, w) from that of the axes that there are."""
    return cast(Padding, ((0, 0), *pads)[-2:])
