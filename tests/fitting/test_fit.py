"""The data-aware fit: moments are those of the data, the closed form is optimal where theory says so, refining
helps.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgekron.algebra import Geometry
from edgekron.fitting.fit import Fitter, balanced
from edgekron.fitting.moments import Moments, MomentSums, sample_patches
from edgekron.structures import KroneckerShape

SHAPES = {
    "channel SVD": KroneckerShape((16, 1), (1, 8), (1, 3), (1, 3)),
    "channel SVD, A spatial": KroneckerShape((16, 1), (1, 8), (3, 1), (3, 1)),
    "spatial SVD": KroneckerShape((16, 1), (1, 8), (1, 3), (3, 1)),
    "four groups of inputs": KroneckerShape((8, 2), (4, 2), (3, 1), (1, 3)),
    "depthwise separable": KroneckerShape((16, 1), (8, 1), (1, 3), (1, 3)),
    "two groups": KroneckerShape((8, 1), (1, 8), (1, 3), (3, 1), groups=2),
}


def layer(shape: KroneckerShape, seed: int = 0, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor, Moments]:
    """A random kernel, correlated rectified inputs [m, g, d] as a trained network has them, and their moments."""
    generator = torch.Generator().manual_seed(seed)
    f, c, h, w = shape.kernel_shape
    d, g = c * h * w, shape.groups
    kernel = torch.randn(f, c, h, w, generator=generator) / math.sqrt(d)
    mixing = torch.randn(g, d, d, generator=generator) * torch.logspace(0, -2, d)[:, None]
    x = torch.relu(torch.einsum("mgd,gde->mge", torch.randn(count, g, d, generator=generator), mixing) + 0.3)
    y = torch.einsum("mgd,gfd->mgf", x, kernel.reshape(g, -1, d)).reshape(count, f)
    sums = MomentSums(g, d, f)
    for part_x, part_y in zip(x.split(700), y.split(700), strict=True):
        sums.add(part_x, part_y)
    return kernel, x, sums.finish()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_error_and_bias_are_those_of_the_outputs(shape: KroneckerShape) -> None:
    kernel, x, moments = layer(shape)
    other = kernel + 0.1 * torch.randn(kernel.shape, generator=torch.Generator().manual_seed(3))
    g, d = x.shape[1:]
    y, z = (torch.einsum("mgd,gfd->mgf", x, k.reshape(g, -1, d)).reshape(len(x), -1).double() for k in (kernel, other))
    wanted = float((y - z - moments.bias(other)).square().sum() / (y - y.mean(0)).square().sum())
    assert moments.error(other) == pytest.approx(wanted, rel=2e-3)
    assert moments.error(kernel) < 1e-5
    torch.testing.assert_close((y - z).mean(0), moments.bias(other), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fit_is_exact_at_full_rank_and_falls_with_rank(shape: KroneckerShape) -> None:
    kernel, _, moments = layer(shape)
    fitter = Fitter(shape, kernel, moments)
    errors = [fitter.closed_form(rank).error for rank in range(1, shape.max_rank + 1)]
    assert errors[-1] < 1e-5
    blind = Fitter(shape, kernel, None)
    for rank in (1, shape.max_rank // 2 + 1):
        assert blind.closed_form_error(rank) == pytest.approx(blind.closed_form(rank).error, rel=1e-4, abs=1e-9)
    ranks = (1, max(1, shape.max_rank // 2), shape.max_rank)
    refined = [fitter.refined(fitter.closed_form(rank), 30).error for rank in ranks]
    assert refined == sorted(refined, reverse=True)
    assert (fitter.closed_form(shape.max_rank).kernel() - kernel).abs().max() < 1e-3 * kernel.abs().max()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_data_beat_weights_and_refining_never_hurts(shape: KroneckerShape) -> None:
    kernel, _, moments = layer(shape)
    rank = max(1, shape.max_rank // 3)
    blind = moments.error(Fitter(shape, kernel, None).closed_form(rank).kernel())
    fitter = Fitter(shape, kernel, moments)
    closed = fitter.closed_form(rank)
    refined = fitter.refined(closed, 40)
    assert closed.error < blind
    assert refined.error <= closed.error
    assert refined.error == pytest.approx(moments.error(refined.kernel()), rel=1e-6)


def test_channel_svd_is_the_principal_components_of_the_outputs() -> None:
    kernel, _, moments = layer(SHAPES["channel SVD"])
    k = kernel.reshape(16, -1).double()
    values = torch.linalg.eigvalsh(k @ moments.xx[0].double() @ k.T).flip(0)
    fitter = Fitter(SHAPES["channel SVD"], kernel, moments)
    for rank in (2, 5, 9):
        optimum = float(values[rank:].sum() / values.sum())
        assert fitter.closed_form(rank).error == pytest.approx(optimum, rel=2e-3, abs=1e-6)


def test_least_squares_kernel_undoes_a_change_of_the_inputs() -> None:
    """Outputs of W on x, inputs T x: the best kernel for them is W T^-1."""
    kernel, x, _ = layer(SHAPES["channel SVD"])
    d = x.shape[2]
    change = torch.eye(d) + 0.1 * torch.randn(d, d, generator=torch.Generator().manual_seed(5)) / math.sqrt(d)
    sums = MomentSums(1, d, 16)
    sums.add(x @ change.T, (x[:, 0] @ kernel.reshape(16, d).T))
    moments = sums.finish()
    solved = moments.least_squares(kernel)
    assert moments.error(solved) < 1e-6
    assert moments.error(solved) < 0.01 * moments.error(kernel)


def test_moments_lean_to_the_original_kernel() -> None:
    kernel, x, _ = layer(SHAPES["channel SVD"])
    noisy = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    gaps = []
    for lean in (0.0, 0.1, 1.0, 100.0):
        sums = MomentSums(1, x.shape[2], 16)
        sums.add(noisy, x[:, 0] @ kernel.reshape(16, -1).T)
        moments = sums.finish().lean(kernel, lean)
        gaps.append(float((moments.least_squares(kernel) - kernel).norm()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.02 * gaps[0]


@pytest.mark.parametrize(
    ("kernel", "geometry", "groups"),
    [
        ((3, 3), Geometry(padding=((1, 1), (1, 1))), 1),
        ((3, 3), Geometry((2, 2), padding=((1, 1), (1, 1))), 2),
        ((1, 5), Geometry((1, 2), (1, 2), ((0, 0), (3, 4))), 1),
        ((2, 2), Geometry((3, 1), (2, 1), ((1, 0), (0, 2))), 3),
    ],
)
def test_patches_times_kernel_are_the_convolution(kernel: tuple[int, int], geometry: Geometry, groups: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 9, 11)).astype(np.float32)
    weight = torch.from_numpy(rng.standard_normal((6, 6 // groups, *kernel)).astype(np.float32))
    (top, bottom), (left, right) = geometry.padding
    padded = F.pad(torch.from_numpy(x), (left, right, top, bottom))
    wanted = F.conv2d(padded, weight, None, geometry.stride, 0, geometry.dilation, groups)
    patches = sample_patches(x, kernel, geometry, groups, 10**6, rng)
    y = torch.einsum("mgd,gfd->mgf", patches, weight.reshape(groups, 6 // groups, -1)).reshape(2, -1, 6)
    torch.testing.assert_close(y.mT.reshape(wanted.shape), wanted, atol=1e-5, rtol=1e-5)
    few = sample_patches(x, kernel, geometry, groups, 4, np.random.default_rng(1))
    assert few.shape[0] == 8
    same = sample_patches(x, kernel, geometry, groups, 4, np.random.default_rng(1))
    assert torch.equal(few, same)


def test_balanced_factors_keep_their_product() -> None:
    a, b = torch.full((3,), 8.0), torch.full((3,), 0.5)
    x, y = balanced([a, b])
    assert float(x.norm()) == pytest.approx(float(y.norm()), rel=1e-6)
    torch.testing.assert_close(x * y, a * b)
