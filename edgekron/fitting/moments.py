"""Second moments of a layer's input patches and outputs: all that a data-aware fit needs to know of the data.

A convolution is a matrix product on unfolded patches: y = W x + b with x of length d = C / groups * kh * kw. The
factors are to give y from inputs x' that may come from an already compressed network. Over the sampled patches, per
group,

    xx = E[x' x'^T] - E[x'] E[x']^T        yx = E[y x'^T] - E[y] E[x']^T        yy = E[|y - E[y]|^2]

so that the error of any kernel K with the best bias E[y] - K E[x'] is

    E |y - K x' - bias|^2 = yy - 2 <K, yx> + <K xx, K>

The sums run in float64, and over all processes where there are several; the patches themselves are never kept, except
the few held out to judge a fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from edgekron.algebra import Geometry, Pair
from edgekron.processes import ALONE, Processes

from .roots import RIDGE, cholesky

#: Share of the uncentred second moments below which float32 patches are only rounding.
ROUNDING = 1e-7
#: Patches that are summed at once, and elements of xx that are updated at once.
ROWS, PIECE = 512, 2**18


@dataclass(frozen=True)
class Moments:
    """Centred moments of one layer.

    ``xx`` [g, d, d] and ``yx`` [g, F / g, d] are float32; ``yy``, the outputs' variance summed over channels, and the
    means ``mean_x`` [g, d] and ``mean_y`` [F] are float64.
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
        k = kernel.float().reshape(self.yx.shape)
        return self.mean_y - (k @ self.mean_x.float()[..., None]).double().reshape(-1)

    def lean(self, kernel: Tensor, strength: float) -> Moments:
        """Moments as if a share ``strength`` of white inputs had gone through the original ``kernel``.

        A fit then leans towards that kernel in directions about which the data say little. The change is in place, as
        ``xx`` can be larger than the network: of these moments, only the means are of use afterwards.
        """
        k = kernel.float().reshape(self.yx.shape)
        diagonal = self.xx.diagonal(dim1=-2, dim2=-1)
        level = float(strength * diagonal.mean())
        diagonal.add_(level)
        yy = self.yy + level * float((k * k).sum())
        return replace(self, yx=self.yx.add_(k, alpha=level), yy=yy)

    def gradient(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """<K xx, K> / 2 - <K, yx> for a ``kernel`` K, and its derivative K xx - yx in the shape of ``kernel``."""
        k = kernel.detach().reshape(self.yx.shape)
        product = k @ self.xx
        value = torch.dot(k.flatten(), product.flatten()) / 2 - torch.dot(k.flatten(), self.yx.flatten())
        return value, product.sub_(self.yx).reshape(kernel.shape)

    def output_products(self, m: Tensor) -> Tensor:
        """M (I (x) xx) M^T [g, f1, f1] in float64, with the ridge of a whitening, for M [g, f1, f2 d]."""
        groups, f1, _ = m.shape
        d = self.xx.shape[-1]
        precise = m.double().reshape(groups, -1, d)
        ridge = RIDGE * self.xx.diagonal(dim1=-2, dim2=-1).double().mean(-1).clamp_min(1e-30)[:, None, None]
        products = torch.zeros(groups, f1, f1, dtype=torch.float64)
        step = max(1, PIECE // (groups * d))
        for start in range(0, d, step):
            part = slice(start, start + step)
            columns = precise[..., part]
            images = precise @ self.xx[..., part].double() + ridge * columns
            products += images.reshape(groups, f1, -1) @ columns.reshape(groups, f1, -1).mT
        return (products + products.mT) / 2

    def least_squares(self, kernel: Tensor) -> Tensor:
        """K* = yx xx^-1, leaning to the original ``kernel`` where xx has no variance. Shape and type of ``kernel``."""
        lower, ridge = cholesky(self.xx)
        right = self.yx.to(lower.dtype) + ridge[..., None] * kernel.to(lower.dtype).reshape(self.yx.shape)
        half = torch.linalg.solve_triangular(lower.mT, right, upper=True, left=False)
        solved: Tensor = torch.linalg.solve_triangular(lower, half, upper=False, left=False)
        return solved.reshape(kernel.shape).to(kernel.dtype)


class MomentSums:
    """Accumulates moments batch by batch."""

    def __init__(self, groups: int, d: int, outputs: int) -> None:
        self._xx: np.ndarray = np.zeros((groups, d, d))
        self._yx = torch.zeros(groups, outputs // groups, d, dtype=torch.float64)
        self._x = torch.zeros(groups, d, dtype=torch.float64)
        self._y = torch.zeros(outputs, dtype=torch.float64)
        self._yy = 0.0
        self._count = 0
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, x: Tensor, y: Tensor, number: int = 0) -> None:  # noqa: ARG002
        """Patches x [m, g, d] and the outputs y [m, F] they should give, float32.

        The ``number`` of the image that the patches are of makes no difference to sums.
        """
        self._waiting.append((x, y))
        self._count += len(x)
        if sum(len(x) for x, _ in self._waiting) >= ROWS:
            self._sum()

    def _sum(self) -> None:
        """Adds the patches that are waiting."""
        if not self._waiting:
            return
        x, y = (torch.cat([pair[i] for pair in self._waiting]) for i in (0, 1))
        self._waiting.clear()
        m, groups = x.shape[:2]
        xs = x.transpose(0, 1)
        ys = y.reshape(m, groups, -1).permute(1, 2, 0)
        for group, rows in self._rows():
            self._xx[group, rows] += (xs[group].mT[rows] @ xs[group]).numpy()
        self._yx += ys @ xs
        self._x += xs.sum(1, dtype=torch.float64)
        self._y += y.sum(0, dtype=torch.float64)
        self._yy += float((y * y).sum(dtype=torch.float64))

    def finish(self, processes: Processes = ALONE) -> Moments:
        """The centred moments of all patches that all ``processes`` have added; the sums are used up."""
        self._sum()
        for sums in (torch.from_numpy(self._xx), self._yx, self._x, self._y):
            processes.sum(sums)
        squares, count = processes.sum(torch.tensor([self._yy, self._count], dtype=torch.float64)).tolist()
        n = self._count = int(count)
        mean_x, mean_y = self._x / n, self._y / n
        by_group = mean_y.reshape(len(mean_x), -1)
        yy = max(squares / n - float(mean_y @ mean_y), ROUNDING * squares / n)
        # What rounding leaves of inputs or outputs that never change must not look like a variance.
        level = ROUNDING / n * torch.from_numpy(self._xx.diagonal(axis1=1, axis2=2).mean(-1, keepdims=True))
        yx = self._yx.div_(n).sub_(by_group[:, :, None] * mean_x[:, None, :])
        xx = self._centred(mean_x.numpy())
        xx.diagonal(dim1=-2, dim2=-1).add_(level)
        return Moments(xx, yx.float(), yy, mean_x, mean_y, n)

    def _centred(self, mean: np.ndarray) -> Tensor:
        """The float32 matrix xx, written row by row over the sums, which take 170 MB for 512 channels and 3x3."""
        total, self._xx = self._xx, np.empty(0)
        shape = total.shape
        small = total.reshape(-1).view(np.float32)[: total.size].reshape(shape)
        for group, rows in self._rows():
            small[group, rows] = total[group, rows] / self._count - np.outer(mean[group, rows], mean[group])
        del small
        total.resize((total.size + 1) // 2, refcheck=False)
        return torch.from_numpy(total.view(np.float32)[: math.prod(shape)].reshape(shape))

    def _rows(self) -> Iterator[tuple[int, slice]]:
        """The rows of xx, group by group, in pieces, so that no second matrix of the size of xx is ever in memory."""
        groups, d = self._x.shape
        step = max(1, PIECE // d)
        return ((group, slice(i, min(i + step, d))) for group in range(groups) for i in range(0, d, step))


def sample_patches(
    x: np.ndarray, kernel: Pair, geometry: Geometry, groups: int, count: int, rng: np.random.Generator
) -> Tensor:
    """``count`` patches [m, groups, C / groups * kh * kw] for each image of x [N, C, H, W], at positions drawn by
    ``rng``.

    All positions where ``count`` is at least their number. The same generator state gives the same positions.
    """
    n = len(x)
    if geometry.transposed:
        x = _spread(x, geometry.upsample)
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


def _spread(x: np.ndarray, steps: Pair) -> np.ndarray:
    """The images [N, C, H, W] with ``steps`` - 1 zeros between neighbouring pixels."""
    n, channels, height, width = x.shape
    spread = np.zeros((n, channels, (height - 1) * steps[0] + 1, (width - 1) * steps[1] + 1), x.dtype)
    spread[:, :, :: steps[0], :: steps[1]] = x
    return spread
