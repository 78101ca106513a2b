"""The factorized torch model: a module of the user's own class with its layers replaced by factorized ones.

model = factorize_module(model, read_hub("resnet20-compressed"))     # then train it with any loop
"""

from __future__ import annotations

from torch import nn

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.graph.hub import kept_channels
from edgekron.graph.parametrizations import plain_copy
from edgekron.graph.passes.fold_batch_norm import folded_norms

from .layers import factorized_layer

_KINDS = (nn.Conv2d, nn.Conv1d, nn.ConvTranspose2d, nn.ConvTranspose1d)


def factorize_module(module: nn.Module, hub: Hub) -> nn.Module:
    """A copy of ``module`` in which every layer that ``hub`` has factorized is a layer of ``edgekron.modules.layers``.

    ``hub`` must come from this module: layers are found by name. A batch normalisation that was folded into the factors
    of its layer becomes an identity. On every layer, parametrizations and pruning masks become the weights that they
    compute. Raises ``UserError`` for a layer that the module lacks, or that has another kernel in the module.
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
        if not isinstance(old, (nn.Linear, *_KINDS)):
            kinds = ", ".join(kind.__name__ for kind in _KINDS)
            raise UserError(f"layer {layer.name} is a {type(old).__name__} in the module, not a Linear, {kinds}.")
        shape = tuple(old.weight.shape)
        f, c, h, w = layer.kernel_shape
        if isinstance(old, nn.ConvTranspose1d | nn.ConvTranspose2d):
            f, c = c * layer.groups, f // layer.groups
        if shape not in ((f, c, h, w), (f, c, w), (f, c)) or old.weight.numel() != f * c * h * w:
            raise UserError(
                f"layer {layer.name} has a kernel {list(shape)} in the module and {[f, c, h, w]} in the "
                "compressed network; compress this module."
            )
        _replace(result, layer.name, factorized_layer(layer.factorized, old))
        if layer.name in norms:
            _replace(result, norms[layer.name], nn.Identity())
    return result


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise UserError(f"the module has no layer {name}; it is not the one that was compressed.") from None


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(_submodule(module, parent), leaf, new)
