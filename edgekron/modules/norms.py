"""Batch normalisations of a torch module that its graph has folded into the layers before them.

A hub remembers what it folded itself. Torch's exporter folds too, before there is a hub, and says nothing: then the
module has a normalisation behind the layer, and the graph has none.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from edgekron.graph.passes.fold_batch_norm import folded_norms

from .same_network import random_inputs

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

_ARITHMETIC = ("Mul", "Add", "Sub", "Div")


def norms_in_layers(module: nn.Module, hub: Hub) -> dict[str, str]:
    """The normalisations of ``module`` that ``hub`` has within its layers, by layer: folded by the hub or before it."""
    known = folded_norms(hub.model)
    left = {
        name
        for name, part in module.named_modules()
        if isinstance(part, BatchNorm)
        and name not in known.values()
        and f"{name}.weight" not in hub.model.graph.initializers
    }
    if not left:
        return known
    behind = {layer: norm for layer, norm in _norms_behind(module, hub) if norm in left}
    inside = {
        layer.name: behind[layer.name]
        for layer in hub.layers()
        if layer.name in behind and layer.name not in known and not _is_normalised(layer)
    }
    return inside | known


def _norms_behind(module: nn.Module, hub: Hub) -> Iterator[tuple[str, str]]:
    """(layer, normalisation) where the module gives the layer's output to the normalisation as it is."""
    probe = copy.deepcopy(module).to("cpu", torch.float32).eval()
    # The tensors are kept, so that no other one gets the identity of one of them.
    made: dict[int, tuple[str, object]] = {}
    found: list[tuple[str, str]] = []
    with ExitStack() as stack, torch.no_grad(), torch.random.fork_rng(devices=[]):
        for name, part in probe.named_modules():
            if isinstance(part, BatchNorm):

                def read(_: nn.Module, inputs: tuple[object, ...], norm: str = name) -> None:
                    if inputs and id(inputs[0]) in made:
                        found.append((made[id(inputs[0])][0], norm))

                stack.callback(part.register_forward_pre_hook(read).remove)
            elif not any(part.children()):

                def keep(_: nn.Module, __: tuple[object, ...], output: object, layer: str = name) -> None:
                    made[id(output)] = layer, output

                stack.callback(part.register_forward_hook(keep).remove)
        probe(*map(torch.from_numpy, random_inputs(hub).values()))
    return iter(found)


def _is_normalised(layer: Layer) -> bool:
    """Whether the graph multiplies the layer's output, or adds to it, by channel."""
    channels = layer.kernel_shape[0] if layer.has_kernel else 0
    for reader, _ in layer.node.outputs[0].uses():
        constants = [v.const_value.numpy() for v in reader.inputs if v is not None and v.const_value is not None]
        by_channel = any(np.size(array) == channels > 1 for array in constants)
        if reader.op_type == "BatchNormalization" or (reader.op_type in _ARITHMETIC and by_channel):
            return True
    return False
