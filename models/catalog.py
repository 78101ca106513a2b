"""The bundled networks by name, and the checkpoints of those that are trained."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parent
RECIPES = ROOT / "recipes"
CHECKPOINTS = ROOT / "checkpoints"

#: The value of one argument of a network's class.
Option = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True)
class BundledNetwork:
    """One network: its class, the shape of its input [C, H, W], a line about it, and the arguments of the class.

    ``made_by`` is ``module.Class`` in this package. The module needs torch, so it is imported when a network is built.
    """

    made_by: str
    input_shape: tuple[int, int, int]
    about: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def build(self, **options: Option) -> nn.Module:
        """The network with random weights; ``options`` go before its own."""
        module, _, name = self.made_by.partition(".")
        made: Callable[..., nn.Module] = getattr(importlib.import_module(f".{module}", __package__), name)
        return made(**{**self.options, **options})


class CheckpointFacts(TypedDict):
    """The file beside a checkpoint: its data, recipe and accuracy, and the machine that trained it."""

    network: str
    data: str
    top1: float
    mean: list[float]
    std: list[float]
    recipe: dict[str, object]
    seconds: int
    device: str
    versions: dict[str, str]


_GREY, _SMALL, _LARGE = (1, 28, 28), (3, 32, 32), (3, 224, 224)
_SIX, _FULLY, _CIFAR = "sixconv.SixConv", "convfc.ConvFC", "resnet_cifar.CifarResNet"
_RESNET, _MOBILE, _VGG = "resnet.ResNet", "mobilenet_v2.MobileNetV2", "vgg.VGG16BN"
_18, _34 = (2, 2, 2, 2), (3, 4, 6, 3)


def _grey(made_by: str, about: str, **options: Option) -> BundledNetwork:
    """A network for grey images of 28x28 pixels."""
    return BundledNetwork(made_by, _GREY, about, {"in_channels": 1, **options})


def _colour(made_by: str, about: str, **options: Option) -> BundledNetwork:
    """A network for colour images of 32x32 pixels."""
    return BundledNetwork(made_by, _SMALL, about, options)


def _small_stem(made_by: str, about: str, **options: Option) -> BundledNetwork:
    """A network for images of 224x224 pixels, with the stem and the ten classes of networks for those of 32x32."""
    return BundledNetwork(made_by, _SMALL, f"{about}, small stem", {"stem": "small", "classes": 10, **options})


def _large(made_by: str, about: str, **options: Option) -> BundledNetwork:
    """A network for colour images of 224x224 pixels."""
    return BundledNetwork(made_by, _LARGE, about, options)


NETWORKS: dict[str, BundledNetwork] = {
    "sixconv": _grey(_SIX, "six convolutions (Ultimate tensorization)"),
    "convfc": _grey(_FULLY, "six convolutions, three fully connected", size=(28, 28)),
    "resnet20": _grey(_CIFAR, "ResNet-20", depth=20),
    "resnet32": _grey(_CIFAR, "ResNet-32", depth=32),
    "resnet56": _grey(_CIFAR, "ResNet-56", depth=56),
    "mobilenetv2-half": _grey(
        _MOBILE, "MobileNetV2 of half the width, small stem", width=0.5, stem="small", classes=10
    ),
    "sixconv-cifar": _colour(_SIX, "six convolutions, colour"),
    "convfc-cifar": _colour(_FULLY, "six convolutions, three fully connected, colour"),
    "resnet20-cifar": _colour(_CIFAR, "ResNet-20, colour", depth=20),
    "resnet32-cifar": _colour(_CIFAR, "ResNet-32, colour", depth=32),
    "resnet56-cifar": _colour(_CIFAR, "ResNet-56, colour", depth=56),
    "resnet110-cifar": _colour(_CIFAR, "ResNet-110, colour", depth=110),
    "resnet18-cifar": _small_stem(_RESNET, "ResNet-18", blocks=_18),
    "resnet34-cifar": _small_stem(_RESNET, "ResNet-34", blocks=_34),
    "resnet50-cifar": _small_stem(_RESNET, "ResNet-50", blocks=_34, bottleneck=True),
    "se-resnet34-cifar": _small_stem(_RESNET, "SE-ResNet-34", blocks=_34, squeeze_excite=True),
    "vgg16-bn-cifar": _colour(_VGG, "VGG-16 with batch normalisation"),
    "mobilenetv2-cifar": _small_stem(_MOBILE, "MobileNetV2"),
    "resnet18": _large(_RESNET, "ResNet-18", blocks=_18),
    "resnet34": _large(_RESNET, "ResNet-34", blocks=_34),
    "resnet50": _large(_RESNET, "ResNet-50", blocks=_34, bottleneck=True),
    "mobilenetv2": _large(_MOBILE, "MobileNetV2"),
}


def build(name: str, **options: Option) -> nn.Module:
    """A network with random weights. ``options`` go before its own, such as ``shortcut="B"`` or ``classes=100``.

    Raises ``KeyError`` for a name that is not in ``NETWORKS``.
    """
    return NETWORKS[name].build(**options)


def facts(name: str, checkpoints: Path = CHECKPOINTS) -> CheckpointFacts | None:
    """The facts beside the checkpoint of ``name`` in the folder; None for a network without a checkpoint."""
    path = checkpoints / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def load(name: str, checkpoints: Path = CHECKPOINTS) -> nn.Module:
    """The network with the weights of its checkpoint in the folder, in evaluation mode.

    Without a checkpoint the weights are random, but the same every time.
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
