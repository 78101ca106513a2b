"""A thinner network of the same kind with random weights: what distillation gives a network of a wanted size to."""

from __future__ import annotations

import torch
from torch import nn

from edgekron import graph, models
from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.graph.cost import cost
from edgekron.models.resnet_cifar import CifarResNet

UNITS = ("macs", "parameters")


def full_width(model: str) -> int:
    """Channels of the first stage of a bundled network. Raises ``UserError`` for one that has no thinner kind."""
    module = models.load(model)
    if not isinstance(module, CifarResNet):
        raise UserError(
            f"{model} has no thinner network of its kind to distil to; give resnet20, resnet32 or resnet56."
        )
    return module.conv1.out_channels


def thinner(model: str, dense: Hub, unit: str, ratio: float) -> tuple[nn.Module, int, dict[str, float]]:
    """The widest network of the kind of ``model`` with ``ratio`` times fewer of ``unit`` than ``dense``, the hub of
    ``model``, in its layers.

    Gives the network, its width and its ratios of both units. Raises ``UserError`` where there is none.
    """
    # A layer's cost grows with the width or its square, so that no wider network can be small enough.
    for width in range(int(full_width(model) / ratio**0.5), 0, -1):
        torch.manual_seed(0)
        module = models.build(model, width=width)
        ratios = ratios_of(dense, hub_of(model, module))
        if ratios[unit] >= ratio:
            return module, width, ratios
    raise UserError(f"even one channel of {model} has not {ratio:g}x fewer {unit}; give a smaller ratio.")


def hub_of(model: str, module: nn.Module) -> Hub:
    """The hub of a network that takes the images of ``model``."""
    return graph.load(module.eval(), input_shape=models.NETWORKS[model].input_shape)


def ratios_of(dense: Hub, other: Hub) -> dict[str, float]:
    """How many times fewer MACs and parameters the layers of ``other`` have."""
    before, after = (
        {unit: sum(cost(layer)[unit] for layer in hub.layers()) for unit in UNITS} for hub in (dense, other)
    )
    return {unit: before[unit] / after[unit] for unit in UNITS}
