"""The six-convolution network of "Ultimate tensorization".

Source: Garipov, Podoprikhin, Novikov, Vetrov, *Ultimate tensorization: compressing convolutional and FC layers alike*
(arXiv 1611.03214), network 1: 64, 64, pool, 128, 128, pool, 128, 128, average pool, linear. The last two convolutions
are unpadded. With three input channels it has 557,248 parameters, batch normalisation included.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def six_convolutions(in_channels: int, *, last_padding: int) -> OrderedDict[str, nn.Module]:
    """The layers that both networks of the paper have: [N, in_channels, H, W] to [N, 128, H // 4, W // 4].

    The last two convolutions have ``last_padding``, and with 0 each takes two pixels off height and width.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def block(name: str, channels_in: int, channels_out: int, padding: int) -> None:
        layers[f"conv{name}"] = nn.Conv2d(channels_in, channels_out, 3, 1, padding, bias=False)
        layers[f"bn{name}"] = nn.BatchNorm2d(channels_out)
        layers[f"relu{name}"] = nn.ReLU(inplace=True)

    block("1_1", in_channels, 64, 1)
    block("1_2", 64, 64, 1)
    layers["pool1"] = nn.MaxPool2d(2)
    block("2_1", 64, 128, 1)
    block("2_2", 128, 128, 1)
    layers["pool2"] = nn.MaxPool2d(2)
    block("3_1", 128, 128, last_padding)
    block("3_2", 128, 128, last_padding)
    return layers


def initialise(network: nn.Module) -> None:
    """Draws the weights of all convolutions anew (He et al., fan out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class SixConv(nn.Module):
    """Input [N, in_channels, H, W] with H and W at least 20; output logits [N, classes]."""

    def __init__(self, *, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers = six_convolutions(in_channels, last_padding=0)
        layers["pool3"] = nn.AdaptiveAvgPool2d(1)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(128, classes, bias=False)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
