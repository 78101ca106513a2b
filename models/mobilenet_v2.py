"""MobileNetV2.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, *MobileNetV2: Inverted Residuals and Linear Bottlenecks* (CVPR 2018),
table 2. ``stem="small"`` removes the first two strides, the usual form for 32x32 images. ``width`` is the paper's width
multiplier: the product is rounded to a multiple of 8, by no more than a tenth downwards, and the last layer never has
fewer than 1,280 channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

#: expansion, output channels, repeats, stride of the first block (table 2)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def scaled(channels: int, width: float) -> int:
    """A number of channels times the width multiplier, as a multiple of 8."""
    nearest = max(8, int(channels * width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels * width else nearest + 8


def _conv(channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; identity shortcut where shapes allow."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        expand = [*_conv(channels_in, hidden), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            *_conv(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(inplace=True),
            *_conv(hidden, channels_out),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """Input [N, 3, H, W]; output logits [N, classes]."""

    def __init__(
        self,
        *,
        stem: Literal["imagenet", "small"] = "imagenet",
        in_channels: int = 3,
        classes: int = 1000,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        small = stem == "small"
        channels, last = scaled(32, width), scaled(1280, max(1.0, width))
        layers: list[nn.Module] = [*_conv(in_channels, channels, 3, 1 if small else 2), nn.ReLU6(inplace=True)]
        for stage, (expansion, outputs, repeats, first_stride) in enumerate(STAGES):
            for index in range(repeats):
                stride = 1 if index or (small and stage == 1) else first_stride
                layers.append(InvertedResidual(channels, scaled(outputs, width), stride, expansion))
                channels = scaled(outputs, width)
        layers += [*_conv(channels, last), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
