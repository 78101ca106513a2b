"""A thinner network of the same kind with random weights, for distillation to train."""

from __future__ import annotations

import torch
from torch import nn

from edgekron import models
from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.models.resnet_cifar import CifarResNet

from .networks import hub_of, ratios


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

    Gives the network, the width and the ratios of both units. Raises ``UserError`` where there is none.
    """
    # A layer's cost grows with the width or its square, so that no wider network can be small enough.
    for width in range(int(full_width(model) / ratio**0.5), 0, -1):
        torch.manual_seed(0)
        module = models.build(model, width=width)
        found = ratios(dense, hub_of(model, module))
        if found[unit] >= ratio:
            return module, width, found
    raise UserError(f"even one channel of {model} has not {ratio:g}x fewer {unit}; give a smaller ratio.")
