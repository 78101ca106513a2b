"""What a network costs, by definitions that are printed beside the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

DEFINITIONS = {
    "parameters": "all stored values of the module, batch normalisation's scale and shift included",
    "macs": "multiply-accumulates of convolutions and fully connected layers for one image; no bias, no other operator",
}


@dataclass(frozen=True)
class ModuleCost:
    """Parameters and multiply-accumulates of a module, as ``DEFINITIONS`` says."""

    parameters: int
    macs: int


def module_cost(module: nn.Module, input_shape: tuple[int, ...]) -> ModuleCost:
    """Counts a module of Conv2d and Linear layers for one input [C, H, W] without computing anything.

    The module is moved to torch's meta device and is of no use afterwards.
    """
    total = 0

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        # Every output value is one product with the weights of its filter.
        total += output.numel() * math.prod(cast(Tensor, layer.weight).shape[1:])

    meta = module.to("meta").eval()
    for layer in meta.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    with torch.no_grad():
        meta(torch.zeros(1, *input_shape, device="meta"))
    return ModuleCost(sum(p.numel() for p in meta.parameters()), total)
