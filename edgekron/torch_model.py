"""The factorized torch model: a module of the user's own class with its layers replaced by factorized ones.

model = factorize_module(model, read_hub("resnet20-compressed"))     # then train it with any loop
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from .errors import UserError
from .graph.passes.fold_batch_norm import folded_norms
from .layers import FactorizedConv2d, FactorizedLinear

if TYPE_CHECKING:
    from .graph import Factorized, Hub


def factorize_module(module: nn.Module, hub: Hub) -> nn.Module:
    """A copy of ``module`` in which every layer that ``hub`` has factorized is a ``FactorizedConv2d`` or
    ``FactorizedLinear``.

    ``hub`` must come from this module: its layers are found by name. Where a batch normalisation was folded into such a
    layer, the factors contain it and it becomes an identity. Raises ``UserError`` for a layer that the module lacks or
    that has another kernel.
    """
    result = copy.deepcopy(module)
    norms = folded_norms(hub.model)
    for layer in hub.layers():
        if layer.factorized is None:
            continue
        old = _submodule(result, layer.name)
        if not isinstance(old, nn.Conv2d | nn.Linear):
            raise UserError(f"layer {layer.name} is a {type(old).__name__} in the module, not a Conv2d or Linear.")
        shape = tuple(old.weight.shape)
        if shape != layer.kernel_shape[: len(shape)]:
            raise UserError(
                f"layer {layer.name} has a kernel {list(shape)} in the module and {list(layer.kernel_shape)} in the "
                "compressed network; compress this module."
            )
        _replace(result, layer.name, _layer(layer.factorized, old))
        if layer.name in norms:
            _replace(result, norms[layer.name], nn.Identity())
    return result


def _layer(factorized: Factorized, old: nn.Conv2d | nn.Linear) -> nn.Module:
    factors = [torch.tensor(t).to(old.weight) for t in factorized.tensors]
    bias = torch.tensor(factorized.bias).to(old.weight) if factorized.bias is not None else None
    if isinstance(old, nn.Linear):
        return FactorizedLinear(factorized.network, factors, bias, order=factorized.order).train(old.training)
    # Stride, padding and its mode are the module's own: the graph may have taken a pad of the forward into the layer.
    new = FactorizedConv2d.replacing(old, factorized.network, factors, bias, order=factorized.order)
    return new.train(old.training)


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise UserError(f"the module has no layer {name}; it is not the one that was compressed.") from None


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(_submodule(module, parent), leaf, new)
