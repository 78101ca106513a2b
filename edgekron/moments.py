"""Second moments of a layer's input patches and outputs: all that a data-aware fit needs to know of the data.

A convolution is a matrix product on unfolded patches: y = W x + b with x of length d = C / groups * kh * kw. The
factors are to give y from inputs x' that may come from an already compressed network. Over the sampled patches, per
group,

    xx = E[x' x'^T] - E[x'] E[x']^T        yx = E[y x'^T] - E[y] E[x']^T        yy = E[|y - E[y]|^2]

so that the error of any kernel K with the best bias E[y] - K E[x'] is

    E |y - K x' - bias|^2 = yy - 2 <K, yx> + <K xx, K>

The sums run in float64; the patches themselves are never kept, except the few held out to judge a fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from .algebra import Geometry, Pair

#: Share of the uncentred second moments that float32 patches cannot resolve.
ROUNDING = 1e-7


@dataclass(frozen=True)
class Moments:
    """Centred moments of one layer: ``xx`` [g, d, d], ``yx`` [g, F / g, d], ``yy`` the outputs' variance summed over
    channels, ``mean_x`` [g, d], ``mean_y`` [F], all float64 but ``xx`` and ``yx``, which are float32.
    """

    xx: Tensor
    yx: Tensor
    yy: float
    mean_x: Tensor
    mean_y: Tensor
    count: int

    def error(self, kernel: Tensor) -> float:
        """Error of the outputs of ``kernel`` [F, C / groups, kh, kw] relative to their variance (both summed)."""
        k = kernel.float().reshape(self.yx.shape)
        value = self.yy - 2 * (k * self.yx).sum(dtype=torch.float64) + (k @ self.xx * k).sum(dtype=torch.float64)
        return max(float(value), 0.0) / max(self.yy, 1e-30)

    def bias(self, kernel: Tensor) -> Tensor:
        """The bias [F] that makes the mean of ``kernel``'s outputs the mean of y."""
        k = kernel.double().reshape(self.yx.shape)
        return self.mean_y - torch.einsum("gfd,gd->gf", k, self.mean_x).reshape(-1)

    def shrunk(self, kernel: Tensor, strength: float) -> Moments:
        """Moments as if a share ``strength`` of white inputs had gone through the original ``kernel``: the fit leans
        towards it where the data say little.
        """
        k = kernel.float().reshape(self.yx.shape)
        level = strength * self.xx.diagonal(dim1=-2, dim2=-1).mean()
        eye = torch.eye(self.xx.shape[-1])
        yy = self.yy + float(level) * float((k * k).sum())
        return Moments(self.xx + level * eye, self.yx + level * k, yy, self.mean_x, self.mean_y, self.count)


class MomentSums:
    """Accumulates moments batch by batch."""

    def __init__(self, groups: int, d: int, outputs: int) -> None:
        self._xx = torch.zeros(groups, d, d, dtype=torch.float64)
        self._yx = torch.zeros(groups, outputs // groups, d, dtype=torch.float64)
        self._x = torch.zeros(groups, d, dtype=torch.float64)
        self._y = torch.zeros(outputs, dtype=torch.float64)
        self._yy = 0.0
        self._count = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Patches x [m, g, d] and the outputs y [m, F] they should give, float32."""
        m, groups, _ = x.shape
        xs = x.transpose(0, 1)
        ys = y.reshape(m, groups, -1).permute(1, 2, 0)
        self._xx += xs.mT @ xs
        self._yx += ys @ xs
        self._x += xs.sum(1, dtype=torch.float64)
        self._y += y.sum(0, dtype=torch.float64)
        self._yy += float((y * y).sum(dtype=torch.float64))
        self._count += m

    def finish(self) -> Moments:
        """The centred moments of what has been added."""
        n = self._count
        mean_x, mean_y = self._x / n, self._y / n
        by_group = mean_y.reshape(len(mean_x), -1)
        # What rounding leaves of inputs or outputs that never change must not look like a variance.
        level = ROUNDING * self._xx.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) / n
        yy = max(self._yy / n - float(mean_y @ mean_y), ROUNDING * self._yy / n)
        # In place: for a layer of 512 channels and a 3x3 window xx alone is 170 MB.
        xx = self._xx.div_(n).baddbmm_(mean_x[:, :, None], mean_x[:, None, :], alpha=-1.0)
        yx = self._yx.div_(n).sub_(by_group[:, :, None] * mean_x[:, None, :])
        xx.diagonal(dim1=-2, dim2=-1).add_(level)
        return Moments(xx.float(), yx.float(), yy, mean_x, mean_y, n)


def sample_patches(
    x: np.ndarray, kernel: Pair, geometry: Geometry, groups: int, count: int, rng: np.random.Generator
) -> Tensor:
    """``count`` patches [m, groups, C / groups * kh * kw] for each image of x [N, C, H, W], at positions drawn by
    ``rng``.

    All positions where ``count`` is at least their number. The same generator state gives the same positions.
    """
    n = len(x)
    padded = np.pad(x, ((0, 0), (0, 0), *geometry.padding))
    span = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, kernel, strict=True)]
    windows = sliding_window_view(padded, span, axis=(2, 3))
    (step_h, step_w), (gap_h, gap_w) = geometry.stride, geometry.dilation
    windows = windows[:, :, ::step_h, ::step_w, ::gap_h, ::gap_w]
    height, width = windows.shape[2:4]
    positions = height * width
    if count >= positions:
        picks = np.broadcast_to(np.arange(positions), (n, positions))
    else:
        picks = rng.integers(0, positions, (n, count))
    item = np.arange(n)[:, None]
    patches = windows[item, :, picks // width, picks % width]
    return torch.from_numpy(np.ascontiguousarray(patches).reshape(n * picks.shape[1], groups, -1))
