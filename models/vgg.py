"""VGG-16 with batch normalisation for small images.

Source: Simonyan, Zisserman, *Very Deep Convolutional Networks* (ICLR 2015), configuration D, with the single linear
classifier that is usual for 32x32 images.
"""

from __future__ import annotations

from torch import Tensor, nn

CONFIGURATION_D = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class VGG16BN(nn.Module):
    """Input [N, in_channels, 32, 32]; output logits [N, classes]."""

    def __init__(self, *, in_channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in CONFIGURATION_D:
            if not width:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
