"""The factorized torch model: a module of the user's own class with its layers replaced by factorized ones.

model = factorize_module(model, read_hub("resnet20-compressed"))     # then train it with any loop
"""

from __future__ import annotations

from torch import nn

from edgekron.errors import UserError
from edgekron.graph import Hub, Layer
from edgekron.graph.hub import kept_channels
from edgekron.graph.parametrizations import plain_copy

from .layers import Convolution, factorized_layer
from .norms import norms_in_layers
from .same_network import check_same
from .taken_over import has_weights, take_layer, take_named

#: Convolutions, the transposed ones last.
_KINDS = (nn.Conv2d, nn.Conv1d, nn.ConvTranspose2d, nn.ConvTranspose1d)


def factorize_module(module: nn.Module, hub: Hub) -> nn.Module:
    """A copy of ``module`` in which every layer that ``hub`` has factorized is a layer of ``edgekron.modules.layers``.

    ``hub`` must come from this module, or from a file of the module: layers are found by name. A batch normalisation
    that was folded into the factors of its layer becomes an identity. Dense layers that were trained after the
    compression get their values from the hub. On every layer, parametrizations and pruning masks become the weights
    that they compute. Raises ``UserError`` for a layer that the module lacks, or that has another kernel in the module,
    and where the result does not compute what the hub computes.
    """
    if pruned := kept_channels(hub.model):
        raise UserError(
            f"channels of {', '.join(pruned)} are pruned in this network; the module's class would make them again, so "
            "use the hub: export it, or load it with edgekron.graph.Hub.open."
        )
    result = plain_copy(module)
    for layer in hub.layers():
        if layer.factorized is not None:
            _check_layer(_submodule(result, layer.name), layer)
    norms = norms_in_layers(result, hub)
    for layer in hub.layers():
        if layer.factorized is not None:
            old = _submodule(result, layer.name)
            _replace(result, layer.name, factorized_layer(layer.factorized, old))
        elif not _take_over(result, layer, norms.get(layer.name)):
            continue
        if layer.name in norms:
            _replace(result, norms[layer.name], nn.Identity())
    take_named(result, hub)
    check_same(result, hub, norms)
    return result


def _check_layer(old: nn.Module, layer: Layer) -> None:
    """Raises ``UserError`` unless a layer of the module can be that of the hub."""
    if not isinstance(old, (nn.Linear, *_KINDS)):
        kinds = ", ".join(kind.__name__ for kind in _KINDS)
        raise UserError(f"layer {layer.name} is a {type(old).__name__} in the module, not a Linear, {kinds}.")
    if not _fits(old, layer):
        raise UserError(
            f"layer {layer.name} has a kernel {list(old.weight.shape)} in the module and {list(_stored(old, layer))} "
            "in the compressed network; compress this module."
        )


def _take_over(module: nn.Module, layer: Layer, norm: str | None) -> bool:
    """Gives a dense layer of the module the weights of the hub; False where the layer has them, or is no module."""
    old = dict(module.named_modules()).get(layer.name)
    if not layer.has_kernel or not isinstance(old, (nn.Linear, *_KINDS)) or not _fits(old, layer):
        return False
    if has_weights(old, None if norm is None else _submodule(module, norm), layer):
        return False
    take_layer(old, layer)
    return True


def _stored(old: nn.Module, layer: Layer) -> tuple[int, int, int, int]:
    """The shape of the hub's kernel as a layer like ``old`` stores it."""
    f, c, h, w = layer.kernel_shape
    return (c * layer.groups, f // layer.groups, h, w) if isinstance(old, _KINDS[2:]) else (f, c, h, w)


def _fits(old: Convolution | nn.Linear, layer: Layer) -> bool:
    """Whether a layer of the module has a kernel of the shape that the hub's layer has."""
    f, c, h, w = _stored(old, layer)
    shape = tuple(old.weight.shape)
    return shape in ((f, c, h, w), (f, c, w), (f, c)) and old.weight.numel() == f * c * h * w


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise UserError(f"the module has no layer {name}; it is not the one that was compressed.") from None


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(_submodule(module, parent), leaf, new)
