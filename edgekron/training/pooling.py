"""Adaptive average pooling as one product with a constant matrix: the same numbers, and several times as fast on a CPU,
above all backwards.

Window i of k over n pixels reaches from floor(i n / k) to ceil((i + 1) n / k), as in ``adaptive_avg_pool2d``.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def pooled(x: Tensor, most: int) -> Tensor:
    """``x`` [N, C, H, W] averaged to at most ``most`` pixels along each axis, [N, C, pixels]."""
    height, width = x.shape[2:]
    matrix = _matrix(height, width, most).to(x)
    if x.is_contiguous(memory_format=torch.channels_last):
        return (matrix @ x.permute(0, 2, 3, 1).flatten(1, 2)).mT
    return x.flatten(2) @ matrix.mT


@cache
def _matrix(height: int, width: int, most: int) -> Tensor:
    """[pixels after, pixels before]"""
    return torch.kron(_windows(height, min(most, height)), _windows(width, min(most, width)))


def _windows(pixels: int, count: int) -> Tensor:
    found = torch.zeros(count, pixels)
    for i in range(count):
        begin, end = i * pixels // count, -(-(i + 1) * pixels // count)
        found[i, begin:end] = 1 / (end - begin)
    return found
