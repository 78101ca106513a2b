"""Similarity of feature maps, and the order in which QSFM removes the channels that make them.

Source: Wang et al., *QSFM: Model Pruning Based on Quantified Similarity between Feature Maps for AI on Edge* (IEEE
Internet of Things Journal 2022). For two maps u, v of one image, scaled so that the layer's maps over all images range
from 0 to L = 1, with means m, variances s and covariance s_uv over the pixels:

    SSIM(u, v) = (2 m_u m_v + c1)(2 s_uv + c2) / ((m_u^2 + m_v^2 + c1)(s_u + s_v + c2))    c1 = 0.01^2, c2 = 0.03^2
    PSNR(u, v) = 10 log10(1 / E[(u - v)^2])    in dB, at most ``MOST_DB``

A pair's similarity is the mean over the images. Again and again, of the most similar pair the map that is more like all
the others goes. Maps that are zero for every image go first, however similar they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch

Measure = Literal["ssim", "psnr"]

MOST_DB = 100.0
_C1, _C2 = 0.01**2, 0.03**2


def map_similarity(pieces: Callable[[], Iterable[np.ndarray]], measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    """Similarity [C, C] of the maps in ``pieces``, float32 [n, C, pixels] each, and which maps are always zero [C].

    ``pieces`` is called twice: for the range, and for the sums. Maps of one pixel are compared across the images of a
    piece instead.
    """
    low, high, largest = np.inf, -np.inf, np.zeros(0)
    for piece in pieces():
        lowest, highest = piece.min(axis=(0, 2)), piece.max(axis=(0, 2))
        low, high = min(low, float(lowest.min())), max(high, float(highest.max()))
        peak = np.maximum(-lowest, highest)
        largest = np.maximum(largest, peak) if largest.size else peak
    total, images = np.zeros((len(largest), len(largest))), 0
    for piece in pieces():
        maps = torch.from_numpy(piece)
        if maps.shape[2] == 1:
            maps = maps.permute(2, 1, 0)
        # One image at a time: a piece may be most of the memory.
        for one in maps:
            total += _pairs((one - low) / max(high - low, 1e-30), measure)
            images += 1
    return total / max(images, 1), largest == 0


def _pairs(maps: torch.Tensor, measure: Measure) -> np.ndarray:
    """The measure [C, C] of the maps [C, pixels] of one image."""
    mean = maps.mean(1, keepdim=True).double()
    centred = maps - mean.float()
    covariance = (centred @ centred.mT).double() / maps.shape[1]
    variance = covariance.diagonal()
    if measure == "psnr":
        error = variance[:, None] + variance[None] - 2 * covariance + (mean - mean.mT) ** 2
        return np.asarray(-10 * torch.log10(error.clamp_min(10 ** (-MOST_DB / 10))))
    light = (2 * mean * mean.mT + _C1) / (mean**2 + mean.mT**2 + _C1)
    return np.asarray(light * (2 * covariance + _C2) / (variance[:, None] + variance[None] + _C2))


def greedy_order(similarity: np.ndarray, dead: np.ndarray, norms: np.ndarray) -> tuple[list[int], list[float]]:
    """All channels but one in the order of their removal, with the similarity that each was removed at.

    ``dead`` maps come first, at an infinite similarity. Of a pair, the map with the larger total similarity to those
    that remain goes; at equal totals that of the smaller norm.
    """
    count = len(similarity)
    order = [int(i) for i in np.flatnonzero(dead)][: count - 1]
    scores = [float("inf")] * len(order)
    alive = np.ones(count, bool)
    alive[order] = False
    pairs = similarity.astype(np.float64).copy()
    np.fill_diagonal(pairs, 0.0)
    totals = pairs[:, alive].sum(1)
    np.fill_diagonal(pairs, -np.inf)
    pairs[~alive] = pairs[:, ~alive] = -np.inf
    while len(order) < count - 1:
        left, right = np.unravel_index(int(pairs.argmax()), pairs.shape)
        # What rounding leaves of a tie is a tie.
        if np.isclose(totals[left], totals[right], rtol=1e-9):
            gone = int(left if norms[left] < norms[right] else right)
        else:
            gone = int(left if totals[left] > totals[right] else right)
        order.append(gone)
        scores.append(float(pairs[left, right]))
        totals -= similarity[:, gone]
        pairs[gone] = pairs[:, gone] = -np.inf
    return order, scores
