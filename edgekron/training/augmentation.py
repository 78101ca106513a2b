"""Random crops, flips and erased squares that can be drawn again: all draws of a pass belong to (seed, pass, row).

So a training that was taken up again sees the same images, and a teacher's answer to an image may be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Crops after padding with ``padding`` zeros, horizontal flips, and a square of ``erase`` pixels set to zero."""

    padding: int = 0
    flip: bool = False
    erase: int = 0

    def draws(self, count: int, height: int, width: int, seed: int) -> Tensor:
        """int16 [count, 5]: row and column of the crop, flip, row and column of the erased square, for each image."""
        generator = torch.Generator().manual_seed(seed)
        ends = (2 * self.padding + 1, 2 * self.padding + 1, 2 if self.flip else 1, height, width)
        drawn = [torch.randint(0, end, (count,), generator=generator, dtype=torch.int16) for end in ends]
        return torch.stack(drawn, 1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """The images [n, C, H, W] as their rows of ``draws`` say."""
        if not (self.padding or self.flip or self.erase):
            return images
        n, _, h, w = images.shape
        device, p = images.device, self.padding
        top, left, flip, y, x = draws.to(device, torch.int64).view(n, 5, 1, 1).unbind(1)
        rows, columns = torch.arange(h, device=device).view(1, h, 1), torch.arange(w, device=device).view(1, 1, w)
        item = torch.arange(n, device=device).view(n, 1, 1)
        across = torch.where(flip.bool(), w - 1 - columns, columns) + left
        out = F.pad(images, (p, p, p, p))[item, :, rows + top, across].permute(0, 3, 1, 2)
        if self.erase:
            up, side = y - self.erase // 2, x - self.erase // 2
            inside = (rows >= up) & (rows < up + self.erase) & (columns >= side) & (columns < side + self.erase)
            out = out.masked_fill(inside[:, None], 0.0)
        return out
