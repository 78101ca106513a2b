"""The dense weights of a hub in a torch module, where they are not those that the module has.

A network that was trained after its compression has other values in the layers that are not factorized, too. A layer
of the module has the kernel of the hub's layer when it, with the normalisation that the hub folded, makes the same
kernel and bias:

    W' = s W,   b' = s (b - m) + t,   s = g / sqrt(v + eps)     for a norm of gain g, shift t, mean m, variance v

Where both are the same, the module keeps its layer and its normalisation. Else it gets the kernel and bias of the hub,
and the normalisation becomes an identity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from edgekron.graph.nodes import adjoint_kernel

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

    from .layers import Convolution

#: Difference of weights, relative in the mean square, that rounding of a folded normalisation may leave.
_TOLERANCE = 1e-5


def has_weights(old: Convolution | nn.Linear, norm: nn.Module | None, layer: Layer) -> bool:
    """Whether ``old``, with ``norm`` behind it, has the kernel and the bias of the hub's layer."""
    kernel, bias = _kernel(old), np.zeros(layer.kernel_shape[0]) if old.bias is None else _array(old.bias)
    if isinstance(norm, BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
        gain, shift = (1.0, 0.0) if norm.weight is None else (_array(norm.weight), _array(norm.bias))
        scale = gain / np.sqrt(_array(norm.running_var) + norm.eps)
        kernel, bias = kernel * scale.reshape(-1, 1, 1, 1), scale * (bias - _array(norm.running_mean)) + shift
    wanted = _bias(layer)
    gap = float(np.square(kernel - layer.kernel).sum())
    size = float(np.square(kernel).sum())
    if wanted is not None:
        gap += float(np.square(bias - wanted).sum())
        size += float(np.square(bias).sum())
    return gap <= _TOLERANCE**2 * size


@torch.no_grad()
def take_layer(old: Convolution | nn.Linear, layer: Layer) -> None:
    """Gives ``old`` the kernel and the bias of the hub's layer."""
    kernel, bias = layer.kernel, _bias(layer)
    if kernel is None:
        return
    if isinstance(old, nn.ConvTranspose1d | nn.ConvTranspose2d):
        kernel = adjoint_kernel(kernel, layer.groups)
    old.weight.copy_(torch.tensor(kernel).reshape(old.weight.shape))
    if bias is not None and old.bias is not None:
        old.bias.copy_(torch.tensor(bias))
    elif bias is not None and bias.any():
        old.bias = nn.Parameter(torch.tensor(bias).to(old.weight))


@torch.no_grad()
def take_named(module: nn.Module, hub: Hub) -> None:
    """Gives parameters and statistics that the hub has under the same name, and in no layer, the hub's values."""
    in_layers = {value.name for layer in hub.layers() for value in layer.node.inputs[1:] if value is not None}
    own: dict[str, Tensor] = module.state_dict(keep_vars=True)
    for name, value in hub.model.graph.initializers.items():
        if name not in own or name in in_layers or value.const_value is None:
            continue
        array = value.const_value.numpy()
        if own[name].is_floating_point() and array.shape == tuple(own[name].shape):
            new = torch.tensor(array).to(own[name])
            if not torch.equal(own[name], new):
                own[name].copy_(new)


def _kernel(old: Convolution | nn.Linear) -> np.ndarray:
    """The kernel [F, C / groups, kh, kw] of the layer, as ``Layer`` has it."""
    weight = _array(old.weight)
    axes = weight.ndim
    weight = weight.reshape(
        (*weight.shape, 1, 1) if axes == 2 else (*weight.shape[:2], 1, -1) if axes == 3 else weight.shape
    )
    return adjoint_kernel(weight, old.groups) if isinstance(old, nn.ConvTranspose1d | nn.ConvTranspose2d) else weight


def _bias(layer: Layer) -> np.ndarray | None:
    """The bias of the hub's layer; None for a product whose bias is another node."""
    if layer.bias is not None:
        return layer.bias.reshape(-1)
    return None if layer.node.op_type == "MatMul" else np.zeros(layer.kernel_shape[0], np.float32)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
