"""Small detectors whose one output joins boxes in pixels with scores from 0 to 1, as those of the field do."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from edgekron.graph import Hub, load

SHAPE = (3, 32, 32)
CLASSES = 5


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU())


class Joined(nn.Module):
    """Boxes and scores of one map side by side: [N, 4 + CLASSES, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.near, self.far = _conv(3, 16, 2), _conv(16, 16), _conv(16, 16)
        self.boxes, self.classes = nn.Conv2d(16, 4, 1), nn.Conv2d(16, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.trunk(x)
        return torch.cat([self.boxes(self.near(x)) * 200, self.classes(self.far(x)).sigmoid()], 1)


class Anchors(nn.Module):
    """Three anchors on each of two maps, decoded by a grid and joined along the rows: [N, 3 * (256 + 64), 5 + CLASSES].

    Each row has a centre, a size, a confidence and the scores.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _conv(3, 16, 2), _conv(16, 16, 2)
        self.heads = nn.ModuleList(nn.Conv2d(16, 3 * (5 + CLASSES), 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        rows = []
        for head, value, stride in zip(self.heads, (x, self.second(x)), (8.0, 16.0), strict=True):
            size = value.shape[-1]
            y = head(value).reshape(-1, 3, 5 + CLASSES, size, size).permute(0, 1, 3, 4, 2).sigmoid()
            centre, extent, scores = y.split([2, 2, 1 + CLASSES], -1)
            steps = torch.arange(size, dtype=torch.float32)
            grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
            joined = torch.cat([(centre * 2 - 0.5 + grid) * stride, (extent * 2) ** 2 * stride, scores], -1)
            rows.append(joined.reshape(-1, 3 * size * size, 5 + CLASSES))
        return torch.cat(rows, 1)


class Free(nn.Module):
    """No anchors: distances to the sides of boxes and scores of two maps, [N, 4 + CLASSES, 256 + 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _conv(3, 16, 2), _conv(16, 16, 2)
        self.boxes = nn.ModuleList(nn.Conv2d(16, 4, 1) for _ in range(2))
        self.classes = nn.ModuleList(nn.Conv2d(16, CLASSES, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        maps = (x, self.second(x))
        rows = [
            torch.cat([boxes(value), classes(value)], 1).flatten(2)
            for boxes, classes, value in zip(self.boxes, self.classes, maps, strict=True)
        ]
        distances, scores = torch.cat(rows, 2).split([4, CLASSES], 1)
        steps = torch.cat([torch.full((value.shape[-1] ** 2,), 8.0 * 2**i) for i, value in enumerate(maps)])
        before, behind = distances.chunk(2, 1)
        boxes = torch.cat([(before + behind) / 2, behind - before], 1) * steps
        return torch.cat([boxes, scores.sigmoid()], 1)


class Segmentation(nn.Module):
    """One output of scores for each pixel, [N, CLASSES, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = _conv(3, 16, 2), _conv(16, 16), nn.Conv2d(32, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(torch.cat([x, self.second(x)], 1))


class Apart(nn.Module):
    """Boxes and scores as two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _conv(3, 16, 2)
        self.boxes, self.classes = nn.Conv2d(16, 4, 1), nn.Conv2d(16, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(x)
        return self.boxes(x) * 200, self.classes(x).sigmoid()


DETECTORS = (Joined, Anchors, Free)
PLAIN = (Segmentation, Apart)


def network(kind: type[nn.Module]) -> nn.Module:
    """With the same weights every time: those of the classes are large enough for scores all over 0 to 1."""
    torch.manual_seed(0)
    module = kind().eval()
    for name, parameter in module.named_parameters():
        if ("classes" in name or "heads" in name) and parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.7)
    return module


@cache
def hub(kind: type[nn.Module]) -> Hub:
    """The network's hub, made once: not to be changed."""
    return load(network(kind), input_shape=SHAPE)


def images(count: int) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)
