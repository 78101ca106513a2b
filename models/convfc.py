"""The network of "Ultimate tensorization" whose parameters are nearly all in fully connected layers.

Source: Garipov, Podoprikhin, Novikov, Vetrov, *Ultimate tensorization: compressing convolutional and FC layers alike*
(arXiv 1611.03214), network 2: 64, 64, pool, 128, 128, pool, 128, 128, all padded, then 1536, 512 and the classes, fully
connected. For 3x32x32 it has 13,929,152 weights and 5,376 parameters of batch normalisation.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from .sixconv import initialise, six_convolutions


class ConvFC(nn.Module):
    """Input [N, in_channels, H, W] with (H, W) = ``size``; output logits [N, classes]."""

    def __init__(self, *, in_channels: int = 3, classes: int = 10, size: tuple[int, int] = (32, 32)) -> None:
        super().__init__()
        self.features = nn.Sequential(six_convolutions(in_channels, last_padding=1))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        widths = (128 * (size[0] // 4) * (size[1] // 4), 1536, 512)
        for index, (width_in, width_out) in enumerate(pairwise(widths), 1):
            layers[f"fc{index}"] = nn.Linear(width_in, width_out, bias=False)
            layers[f"bn{index}"] = nn.BatchNorm1d(width_out)
            layers[f"relu{index}"] = nn.ReLU(inplace=True)
        layers["fc3"] = nn.Linear(widths[-1], classes, bias=False)
        self.classifier = nn.Sequential(layers)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
