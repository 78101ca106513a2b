"""ResNet-18, -34 and -50 for ImageNet or with the stem for small images, and SE-ResNet-34.

Sources: He et al., *Deep Residual Learning for Image Recognition* (CVPR 2016), table 1; Hu, Shen, Sun, *Squeeze-and-
Excitation Networks* (CVPR 2018), section 3, reduction 16. The stride of a bottleneck sits in its 3x3 convolution.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


def _conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the channels' means (Hu et al., eq. 2-4)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]


class ResidualBlock(nn.Module):
    """A basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) block with a projection where shapes differ."""

    def __init__(self, channels_in: int, width: int, stride: int, *, bottleneck: bool, squeeze_excite: bool) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        widths = [channels_in, *[width] * (len(sizes) - 1), out]
        self.convs = nn.ModuleList(
            _conv_bn(a, b, kernel, step) for a, b, (kernel, step) in zip(widths[:-1], widths[1:], sizes, strict=True)
        )
        self.gate: nn.Module = SqueezeExcite(out) if squeeze_excite else nn.Identity()
        same = stride == 1 and channels_in == out
        self.shortcut: nn.Module = nn.Identity() if same else _conv_bn(channels_in, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs[:-1]:
            y = F.relu(conv(y))
        return F.relu(self.gate(self.convs[-1](y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Input [N, 3, H, W]; output logits [N, classes]. ``stem`` is "imagenet" (7x7, pool) or "small" (3x3)."""

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        *,
        bottleneck: bool = False,
        squeeze_excite: bool = False,
        stem: Literal["imagenet", "small"] = "imagenet",
        in_channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        if stem == "imagenet":
            self.stem = nn.Sequential(_conv_bn(in_channels, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        else:
            self.stem = nn.Sequential(_conv_bn(in_channels, 64, 3, 1), nn.ReLU(inplace=True))
        channels, stages = 64, []
        for stage, count in enumerate(blocks):
            width = 64 * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                stages.append(
                    ResidualBlock(channels, width, stride, bottleneck=bottleneck, squeeze_excite=squeeze_excite)
                )
                channels = width * 4 if bottleneck else width
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))
