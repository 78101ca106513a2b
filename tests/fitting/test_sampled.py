"""Wide layers are known by rows: moments, fits and eliminations equal those of the whole matrix, in linear memory."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import edgekron.fitting.sampled as sampled_module
from edgekron.fitting.fit import Fitter
from edgekron.fitting.moments import Moments, MomentSums
from edgekron.fitting.roots import Symmetric, products
from edgekron.fitting.sampled import SampledMoments, SampledSums, rows_of
from edgekron.pruning.elimination import Elimination, SampledElimination, elimination_order
from edgekron.structures import FAMILIES, Structure

KERNELS = [((12, 8, 3, 3), 1), ((12, 4, 3, 5), 2), ((10, 48, 1, 1), 1)]
CASES = [
    (name, template)
    for kernel_shape, groups in KERNELS
    for name, family in FAMILIES.items()
    for template in list(family.templates(kernel_shape, groups))[:2]
]
IDS = [f"{name} {template}" for name, template in CASES]


def both(
    shape: tuple[int, int, int, int], groups: int, patches: int, rows: int = 128
) -> tuple[torch.Tensor, Moments, SampledMoments]:
    """A kernel, and the moments of the same patches as a matrix and as rows."""
    f, d = shape[0], math.prod(shape[1:])
    generator = torch.Generator().manual_seed(5)
    kernel = torch.randn(shape, generator=generator) / math.sqrt(d)
    mixing = torch.randn(groups, d, d, generator=generator) * torch.logspace(0, -1, d)[:, None]
    x = torch.relu(torch.einsum("mgd,gde->mge", torch.randn(patches, groups, d, generator=generator), mixing) + 0.3)
    y = torch.einsum("mgd,gfd->mgf", x, kernel.reshape(groups, -1, d)).reshape(patches, f)
    # Inputs that differ a little from those that made y, as behind compressed layers.
    x = x + 0.05 * torch.randn(x.shape, generator=generator)
    dense, sampled = MomentSums(groups, d, f), SampledSums(groups, d, f, rows)
    for number, (part_x, part_y) in enumerate(zip(x.split(9), y.split(9), strict=True)):
        dense.add(part_x, part_y, number)
        sampled.add(part_x, part_y, number)
    return kernel, dense.finish(), sampled.finish()


@pytest.mark.parametrize("strength", [0.0, 0.1])
@pytest.mark.parametrize(("shape", "groups"), KERNELS)
def test_moments_of_rows_are_those_of_the_matrix(
    shape: tuple[int, int, int, int], groups: int, strength: float
) -> None:
    kernel, dense, rows = both(shape, groups, 117)
    other = kernel + 0.1 * torch.randn(kernel.shape, generator=torch.Generator().manual_seed(3))
    if strength:
        dense, rows = dense.lean(kernel, strength), rows.lean(kernel, strength)
    assert rows.count == dense.count == 117
    assert rows.yy + rows.white == pytest.approx(dense.yy, rel=1e-6)
    torch.testing.assert_close(rows.bias(other), dense.bias(other), rtol=1e-6, atol=1e-6)
    for one in (kernel, other):
        assert rows.error(one) == pytest.approx(dense.error(one), abs=1e-6)
    m = other.reshape(groups, shape[0] // groups, -1)
    wanted = dense.output_products(m)
    torch.testing.assert_close(rows.output_products(m), wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))
    (_, slope), (_, wanted) = rows.gradient(other), dense.gradient(other)
    torch.testing.assert_close(slope, wanted, rtol=0, atol=1e-6 * float(dense.yx.abs().max()))
    values = [moments.gradient(other)[0] - moments.gradient(kernel)[0] for moments in (rows, dense)]
    assert float(values[0]) == pytest.approx(float(values[1]), abs=1e-6 * dense.yy)


@pytest.mark.parametrize("patches", [36, 117])
@pytest.mark.parametrize(("shape", "groups"), KERNELS)
def test_least_squares_of_rows_is_that_of_the_matrix(
    shape: tuple[int, int, int, int], groups: int, patches: int
) -> None:
    kernel, dense, rows = both(shape, groups, patches)
    other = kernel * 0.5
    for strength in (0.0, 0.05):
        if strength:
            dense, rows = dense.lean(kernel, strength), rows.lean(kernel, strength)
        wanted, found = dense.least_squares(other), rows.least_squares(other)
        assert dense.error(found) == pytest.approx(dense.error(wanted), abs=1e-6)
        assert dense.error(found) < 0.1 * dense.error(other)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(True, id="small parts whole"),
        pytest.param(False, id="all parts by rows", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize(("method", "structure"), CASES, ids=IDS)
def test_every_family_fits_rows_as_it_fits_the_matrix(
    method: str, structure: Structure, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whitened by any root, a closed form that one SVD makes is the same; others see rotated axes, and may differ where
    they are no optimum, so that theirs are compared in the same root.
    """
    kernel, dense, rows = both(structure.kernel_shape, structure.groups, 117)
    if not whole:
        monkeypatch.setattr(sampled_module, "WIDE", 1)
    ranks = tuple(max(1, math.ceil(0.4 * rank)) for rank in structure.max_ranks)
    wanted, found = (Fitter(structure, kernel, moments) for moments in (dense, rows))
    one, other = wanted.closed_form(*ranks), found.closed_form(*ranks)
    if whole or structure.optimal:
        assert other.error == pytest.approx(one.error, abs=1e-6)
    assert dense.error(other.kernel()) == pytest.approx(other.error, abs=1e-6)
    better = found.refined(other, 20)
    assert better.error <= other.error
    assert dense.error(better.kernel()) == pytest.approx(better.error, abs=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_symmetric_roots_whiten(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(groups, 7, 30, generator=generator)
    level = torch.full((groups,), 1e-4, dtype=torch.float64)
    root = Symmetric.of(rows, products(rows), level)
    whole = rows.double().mT @ rows.double() + 1e-4 * torch.eye(30, dtype=torch.float64)
    lower = root.times(torch.eye(30).repeat(groups, 1, 1), inverse=False)
    torch.testing.assert_close((lower @ lower.mT).double(), whole, rtol=0, atol=1e-6 * float(whole.abs().max()))
    values = torch.randn(groups, 5, 30, generator=generator)
    back = root.times(root.times(values, inverse=False), inverse=True)
    torch.testing.assert_close(back, values, rtol=0, atol=1e-4)
    shared = root.shared()
    lower = shared.times(torch.eye(30)[None], inverse=False)[0]
    torch.testing.assert_close((lower @ lower.T).double(), whole.mean(0), rtol=0, atol=1e-6 * float(whole.abs().max()))


def test_more_patches_than_rows_are_right_in_the_mean() -> None:
    """A sketch of 2,000 patches by 600 rows estimates their error as 600 independent patches would."""
    kernel, dense, rows = both((12, 8, 3, 3), 1, 2000, rows=600)
    assert rows.count == 2000
    torch.testing.assert_close(rows.mean_y, dense.mean_y, rtol=0, atol=1e-6)
    for seed in range(5):
        other = kernel + 0.1 * torch.randn(kernel.shape, generator=torch.Generator().manual_seed(seed))
        assert rows.error(other) == pytest.approx(dense.error(other), rel=0.2)
    gap = float((rows.x.mT @ rows.x - dense.xx).square().sum() / dense.xx.square().sum())
    assert gap < 0.1


def test_a_layer_is_wide_above_8192_inputs() -> None:
    assert rows_of(1, 8192, 4096) is None
    assert rows_of(1, 16384, 8) == 1024
    assert rows_of(1, 65536, 128) == 256
    assert rows_of(1, 65536, 1024) == 1024
    assert rows_of(1, 25088, 4096) == 2048
    assert rows_of(1, 2**22, 8) == 64


@pytest.mark.parametrize(("block", "count"), [(1, 40), (6, 8), (30, 3)])
def test_elimination_by_rows_is_that_of_the_matrix(block: int, count: int) -> None:
    rng = np.random.default_rng(0)
    d, level = block * count, 1e-3
    rows = rng.normal(size=(20, d)).astype(np.float32)
    weights = rng.normal(size=(5, d))
    blocks = rng.permutation(d).reshape(count, block)
    # The ridge is taken from the same mean variance.
    moments = rows.astype(np.float64).T @ rows + level * np.eye(d)
    wanted = Elimination(moments, weights, blocks, np.arange(count), 0.5)
    found = SampledElimination(rows, level, weights, blocks, np.arange(count), 0.5)
    np.testing.assert_allclose(found.prices(count), wanted.prices(count), rtol=1e-6)
    order, added = elimination_order([wanted], count, count - 1)
    assert elimination_order([found], count, count - 1)[0] == order
    found = SampledElimination(rows, level, weights, blocks, np.arange(count), 0.5)
    np.testing.assert_allclose(elimination_order([found], count, count - 1)[1], added, rtol=1e-5)
    np.testing.assert_allclose(found.weights, wanted.weights, rtol=0, atol=1e-6)


MEMORY = """
import math, resource
import torch
from edgekron.fitting.fit import Fitter
from edgekron.fitting.sampled import WIDE, sums_of
from edgekron.memory import give_back, give_back_large_blocks
from edgekron.structures import FAMILIES

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

give_back_large_blocks()
torch.set_num_threads(1)
shape = (64, 512, 64, 1)
torch.linalg.eigh(torch.eye(64, dtype=torch.float64))
before = peak()
kernel = torch.randn(shape) / 181
d = math.prod(shape[1:])
assert d > WIDE
sums = sums_of(1, d, 64)
for image in range(8):
    x = torch.rand(32, 1, d)
    sums.add(x, x[:, 0] @ kernel.reshape(64, -1).T, image)
moments = sums.finish().lean(kernel, 0.03)
del sums, x
better = moments.least_squares(kernel)
for name, rank in (("channel-svd", (16,)), ("low-rank", (16,)), ("tucker", (16, 64))):
    template = next(iter(FAMILIES[name].templates(shape, 1)))
    fitter = Fitter(template, better, moments)
    fit = fitter.closed_form(*rank)
    assert fitter.refined(fit, 3).error <= fit.error < 1
    del fitter
    give_back()
print(peak() - before)
"""


def test_a_wide_layer_is_fitted_in_memory_that_is_linear_in_its_inputs() -> None:
    """32,768 inputs: their matrix of moments would be 8.6 GB, and 4.3 GB in float32."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 * 4 * 64 * 32768 + 200e6
