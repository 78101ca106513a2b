"""The bundled networks by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parent
RECIPES = ROOT / "recipes"
CHECKPOINTS = ROOT / "checkpoints"


def _cifar_resnet(depth: int, **options: Any) -> nn.Module:
    from .resnet_cifar import CifarResNet

    return CifarResNet(depth, **options)


def _sixconv(**options: Any) -> nn.Module:
    from .sixconv import SixConv

    return SixConv(**options)


def _convfc(**options: Any) -> nn.Module:
    from .convfc import ConvFC

    return ConvFC(**options)


def _resnet(*blocks: int, **options: Any) -> nn.Module:
    from .resnet import ResNet

    return ResNet(blocks, **options)  # type: ignore[arg-type]


def _mobilenet_v2(**options: Any) -> nn.Module:
    from .mobilenet_v2 import MobileNetV2

    return MobileNetV2(**options)


def _vgg16_bn(**options: Any) -> nn.Module:
    from .vgg import VGG16BN

    return VGG16BN(**options)


@dataclass(frozen=True)
class Entry:
    """One network: how to build it, its input [C, H, W], and one line about it."""

    factory: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]
    about: str


_GREY, _SMALL, _LARGE = (1, 28, 28), (3, 32, 32), (3, 224, 224)
_small: dict[str, Any] = {"stem": "small", "classes": 10}

NETWORKS: dict[str, Entry] = {
    "sixconv": Entry(partial(_sixconv, in_channels=1), _GREY, "six convolutions (Ultimate tensorization)"),
    "convfc": Entry(partial(_convfc, in_channels=1, size=(28, 28)), _GREY, "six convolutions, three fully connected"),
    "resnet20": Entry(partial(_cifar_resnet, 20, in_channels=1), _GREY, "ResNet-20"),
    "resnet32": Entry(partial(_cifar_resnet, 32, in_channels=1), _GREY, "ResNet-32"),
    "resnet56": Entry(partial(_cifar_resnet, 56, in_channels=1), _GREY, "ResNet-56"),
    "mobilenetv2-half": Entry(
        partial(_mobilenet_v2, in_channels=1, width=0.5, **_small), _GREY, "MobileNetV2 of half the width, small stem"
    ),
    "sixconv-cifar": Entry(_sixconv, _SMALL, "six convolutions, colour"),
    "convfc-cifar": Entry(_convfc, _SMALL, "six convolutions, three fully connected, colour"),
    "resnet20-cifar": Entry(partial(_cifar_resnet, 20), _SMALL, "ResNet-20, colour"),
    "resnet32-cifar": Entry(partial(_cifar_resnet, 32), _SMALL, "ResNet-32, colour"),
    "resnet56-cifar": Entry(partial(_cifar_resnet, 56), _SMALL, "ResNet-56, colour"),
    "resnet110-cifar": Entry(partial(_cifar_resnet, 110), _SMALL, "ResNet-110, colour"),
    "resnet18-cifar": Entry(partial(_resnet, 2, 2, 2, 2, **_small), _SMALL, "ResNet-18, small stem"),
    "resnet34-cifar": Entry(partial(_resnet, 3, 4, 6, 3, **_small), _SMALL, "ResNet-34, small stem"),
    "resnet50-cifar": Entry(partial(_resnet, 3, 4, 6, 3, bottleneck=True, **_small), _SMALL, "ResNet-50, small stem"),
    "se-resnet34-cifar": Entry(
        partial(_resnet, 3, 4, 6, 3, squeeze_excite=True, **_small), _SMALL, "SE-ResNet-34, small stem"
    ),
    "vgg16-bn-cifar": Entry(_vgg16_bn, _SMALL, "VGG-16 with batch normalisation"),
    "mobilenetv2-cifar": Entry(partial(_mobilenet_v2, **_small), _SMALL, "MobileNetV2, small stem"),
    "resnet18": Entry(partial(_resnet, 2, 2, 2, 2), _LARGE, "ResNet-18"),
    "resnet34": Entry(partial(_resnet, 3, 4, 6, 3), _LARGE, "ResNet-34"),
    "resnet50": Entry(partial(_resnet, 3, 4, 6, 3, bottleneck=True), _LARGE, "ResNet-50"),
    "mobilenetv2": Entry(_mobilenet_v2, _LARGE, "MobileNetV2"),
}


def build(name: str, **options: Any) -> nn.Module:
    """A network with random weights. ``options`` override the entry's, such as ``shortcut="B"`` or ``classes=100``.

    Raises ``KeyError`` for a name that is not in ``NETWORKS``.
    """
    return NETWORKS[name].factory(**options)


def facts(name: str, checkpoints: Path = CHECKPOINTS) -> dict[str, Any] | None:
    """What is written beside the checkpoint of ``name`` in the folder; None where there is none."""
    path = checkpoints / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def load(name: str, checkpoints: Path = CHECKPOINTS) -> nn.Module:
    """The network with its trained weights where there is a checkpoint in the folder, in evaluation mode.

    Without a checkpoint its weights are random, but the same every time.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(name)
    path = checkpoints / f"{name}.safetensors"
    if path.exists():
        import safetensors.torch

        model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()
