"""Parameters and multiply-accumulates of the reference networks against the published counts, to the digit."""

import pytest
import torch
from torch import nn

from edgekron.models import NETWORKS, build
from edgekron.modules.cost import ModuleCost, module_cost

# name, options, parameters, multiply-accumulates in millions, and the decimals these are known to
COUNTS = [
    ("resnet20-cifar", {}, 269_722, 40.55, 2),
    ("resnet20-cifar", {"shortcut": "B"}, 272_474, 40.81, 2),
    ("resnet32-cifar", {}, 464_154, 68.86, 2),
    ("resnet32-cifar", {"shortcut": "B"}, 466_906, 69.12, 2),
    ("resnet32-cifar", {"width": 7}, 89_673, 13.29, 2),
    ("resnet56-cifar", {}, 853_018, 125.49, 2),
    ("resnet56-cifar", {"shortcut": "B"}, 855_770, 125.75, 2),
    ("resnet110-cifar", {}, 1_727_962, 252.89, 2),
    ("resnet110-cifar", {"shortcut": "B"}, 1_730_714, 253.15, 2),
    ("resnet18-cifar", {}, 11_173_962, 555.42, 2),
    ("resnet34-cifar", {}, 21_282_122, 1159.4, 1),
    ("se-resnet34-cifar", {}, 21_443_318, 1159.6, 1),
    ("resnet50-cifar", {}, 23_520_842, 1297.8, 1),
    ("resnet50-cifar", {"squeeze_excite": True}, 26_051_834, 1300.3, 1),
    ("resnet18", {}, 11_689_512, 1814, 0),
    ("resnet34", {}, 21_797_672, 3664, 0),
    ("resnet50", {}, 25_557_032, 4089, 0),
    ("vgg16-bn-cifar", {}, 14_728_266, 313.20, 2),
    ("mobilenetv2", {}, 3_504_872, 300.8, 1),
    ("mobilenetv2-cifar", {}, 2_236_682, 88.0, 1),
    ("mobilenetv2", {"width": 0.75}, 2_636_424, 209.1, 1),
    ("mobilenetv2", {"width": 0.5}, 1_968_680, 97.1, 1),
    ("mobilenetv2-half", {}, 700_202, 23.11, 2),
    ("convfc-cifar", {}, 13_934_528, 128.39, 2),
    ("convfc", {}, 10_984_256, 97.58, 2),
]

CONVOLUTION_WEIGHTS = [
    ("resnet20-cifar", {}, 267_696),
    ("resnet20-cifar", {"shortcut": "B"}, 270_256),
    ("resnet32-cifar", {}, 461_232),
    ("resnet32-cifar", {"shortcut": "B"}, 463_792),
    ("resnet56-cifar", {}, 848_304),
    ("resnet56-cifar", {"shortcut": "B"}, 850_864),
    ("resnet18-cifar", {}, 11_159_232),
    ("vgg16-bn-cifar", {}, 14_710_464),
]


def on_meta(name: str, options: dict) -> nn.Module:
    with torch.device("meta"):
        return build(name, **options)


@pytest.mark.parametrize(("name", "options", "parameters", "millions", "decimals"), COUNTS)
def test_counts(name, options, parameters, millions, decimals):
    cost = module_cost(on_meta(name, options), NETWORKS[name].input_shape)
    assert cost.parameters == parameters
    assert round(cost.macs / 1e6, decimals) == millions


@pytest.mark.parametrize(("name", "options", "weights"), CONVOLUTION_WEIGHTS)
def test_convolution_weights(name, options, weights):
    model = on_meta(name, options)
    assert sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d)) == weights


def test_six_convolutions_has_the_published_parameters():
    assert module_cost(on_meta("sixconv-cifar", {}), (3, 32, 32)).parameters == 557_248


def test_six_convolutions_before_fully_connected_layers_have_the_published_parameters():
    model = on_meta("convfc-cifar", {})
    weights = {type(m).__name__: 0 for m in model.modules()}
    for module in model.modules():
        weights[type(module).__name__] += sum(p.numel() for p in module.parameters(recurse=False))
    assert weights["Conv2d"] + weights["Linear"] == 13_929_152
    assert weights["BatchNorm2d"] + weights["BatchNorm1d"] == 5_376


def test_fully_connected_layers_take_the_size_of_the_images():
    model = build("convfc", in_channels=2, size=(12, 17), classes=7)
    assert model.classifier.fc1.weight.shape == (1536, 128 * 3 * 4)
    assert model.eval()(torch.zeros(3, 2, 12, 17)).shape == (3, 7)


@pytest.mark.parametrize(
    ("layer", "shape", "cost"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), ModuleCost(8 * 27 + 8, 8 * 27 * 120)),
        (nn.Conv2d(6, 8, (1, 3), stride=2, groups=2, bias=False), (6, 10, 13), ModuleCost(8 * 9, 8 * 9 * 5 * 6)),
        (nn.Conv2d(4, 4, 3, dilation=2, groups=4), (4, 9, 9), ModuleCost(4 * 9 + 4, 4 * 9 * 25)),
        (nn.Linear(20, 7), (20,), ModuleCost(147, 140)),
        # A fully connected layer applied at 5 places counts 5 times.
        (nn.Linear(20, 7), (5, 20), ModuleCost(147, 700)),
        (nn.BatchNorm2d(4), (4, 9, 9), ModuleCost(8, 0)),
    ],
)
def test_cost_of_one_layer_by_hand(layer, shape, cost):
    assert module_cost(layer, shape) == cost
