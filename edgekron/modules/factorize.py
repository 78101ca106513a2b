"""The factorized torch model: a module of the user's own class with its layers replaced by factorized ones.

model = factorize_module(model, read_hub("resnet20-compressed"))     # then train it with any loop
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edgekron.errors import UserError
from edgekron.graph.parametrizations import plain_copy
from edgekron.graph.passes.fold_batch_norm import folded_norms
from edgekron.pruning import kept_channels

from .layers import (
    FactorizedConv1d,
    FactorizedConv2d,
    FactorizedConvTranspose1d,
    FactorizedConvTranspose2d,
    FactorizedLinear,
)

if TYPE_CHECKING:
    from edgekron.graph import Factorized, Hub


_CONVOLUTIONS: dict[type[nn.Module], type[FactorizedConv2d | FactorizedConvTranspose2d]] = {
    nn.Conv2d: FactorizedConv2d,
    nn.Conv1d: FactorizedConv1d,
    nn.ConvTranspose2d: FactorizedConvTranspose2d,
    nn.ConvTranspose1d: FactorizedConvTranspose1d,
}


def factorize_module(module: nn.Module, hub: Hub) -> nn.Module:
    """A copy of ``module`` in which every layer that ``hub`` has factorized is a layer of ``edgekron.modules.layers``.

    ``hub`` must come from this module: its layers are found by name. Where a batch normalisation was folded into such a
    layer, the factors contain it and it becomes an identity; parametrizations and pruning masks become the weights
    they compute, on every layer. Raises ``UserError`` for a layer that the module lacks or that has another kernel.
    """
    if pruned := kept_channels(hub.model):
        raise UserError(
            f"channels of {', '.join(pruned)} are pruned in this network; the module's class would make them again, so "
            "use the hub: export it, or load it with edgekron.graph.Hub.open."
        )
    result = plain_copy(module)
    norms = folded_norms(hub.model)
    for layer in hub.layers():
        if layer.factorized is None:
            continue
        old = _submodule(result, layer.name)
        if not isinstance(old, (nn.Linear, *_CONVOLUTIONS)):
            kinds = ", ".join(kind.__name__ for kind in _CONVOLUTIONS)
            raise UserError(f"layer {layer.name} is a {type(old).__name__} in the module, not a Linear, {kinds}.")
        weight: torch.Tensor = old.weight  # type: ignore[assignment]
        shape = tuple(weight.shape)
        f, c, h, w = layer.kernel_shape
        if isinstance(old, nn.ConvTranspose1d | nn.ConvTranspose2d):
            f, c = c * layer.groups, f // layer.groups
        if shape not in ((f, c, h, w), (f, c, w), (f, c)) or weight.numel() != f * c * h * w:
            raise UserError(
                f"layer {layer.name} has a kernel {list(shape)} in the module and {[f, c, h, w]} in the "
                "compressed network; compress this module."
            )
        _replace(result, layer.name, _layer(layer.factorized, old))
        if layer.name in norms:
            _replace(result, norms[layer.name], nn.Identity())
    return result


def _layer(factorized: Factorized, old: nn.Module) -> nn.Module:
    weight: torch.Tensor = old.weight  # type: ignore[assignment]
    factors = [torch.tensor(t).to(weight) for t in factorized.tensors]
    bias = torch.tensor(factorized.bias).to(weight) if factorized.bias is not None else None
    if isinstance(old, nn.Linear):
        return FactorizedLinear(factorized.network, factors, bias, order=factorized.order).train(old.training)
    kind = next(kind for plain, kind in _CONVOLUTIONS.items() if isinstance(old, plain))
    # Stride, padding and its mode are the module's own: the graph may have taken a pad of the forward into the layer.
    new = kind.replacing(old, factorized.network, factors, bias, order=factorized.order)  # type: ignore[arg-type]
    return new.train(old.training)


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise UserError(f"the module has no layer {name}; it is not the one that was compressed.") from None


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(_submodule(module, parent), leaf, new)
