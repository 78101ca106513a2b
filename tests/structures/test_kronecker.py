"""The Kronecker structure: exact at full rank, optimal below it, and counted as the paper counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekron.algebra import Geometry, StructureError, dense_macs
from edgekron.structures import KroneckerShape, shapes


def split(draw: st.DrawFn, largest: int) -> tuple[int, int]:
    return draw(st.integers(1, largest)), draw(st.integers(1, largest))


@st.composite
def kronecker_shapes(draw: st.DrawFn) -> KroneckerShape:
    f, c, h, w = (split(draw, n) for n in (4, 4, 3, 3))
    return KroneckerShape(f, c, h, w, draw(st.sampled_from([1, 1, 2, 3])))


@settings(max_examples=60)
@given(kronecker_shapes(), st.integers(0, 1000))
def test_full_rank_is_exact_and_the_error_is_the_tail(shape: KroneckerShape, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(shape.kernel_shape, dtype=torch.float64, generator=generator)
    terms = shape.decompose(kernel)
    last = float("inf")
    for rank in range(1, shape.max_rank + 1):
        factors = terms.truncated(rank)
        error = float((shape.network(rank).expand(factors) - kernel).square().sum())
        tail = float(terms.sigma[:, rank:].square().sum())
        assert error == pytest.approx(tail, rel=1e-8, abs=1e-12 * float(kernel.square().sum()))
        assert error <= last + 1e-12
        last = error
    assert last <= 1e-12 * float(kernel.square().sum())


@settings(max_examples=40)
@given(kronecker_shapes())
def test_sum_of_kronecker_products_by_its_definition(shape: KroneckerShape) -> None:
    rank = min(2, shape.max_rank)
    network = shape.network(rank)
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal(network.factor_shape(i)) for i in (0, 1)]
    kernel = network.expand(factors)
    full = [
        f.reshape(shape.groups, rank, *(s[i] for s in (shape.f, shape.c, shape.h, shape.w)))
        for i, f in enumerate(factors)
    ]
    for group in range(shape.groups):
        wanted = sum(np.kron(full[0][group, r], full[1][group, r]) for r in range(rank))
        per_group = shape.kernel_shape[0] // shape.groups
        np.testing.assert_allclose(kernel[group * per_group : (group + 1) * per_group], wanted, atol=1e-12)


def test_exact_kronecker_rank_is_recovered() -> None:
    shape = KroneckerShape((8, 4), (4, 8), (3, 1), (1, 3))
    network = shape.network(3)
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(network.factor_shape(i), dtype=torch.float64, generator=generator) for i in (0, 1)]
    kernel = network.expand(made)
    terms = shape.decompose(kernel)
    assert (network.expand(terms.truncated(3)) - kernel).abs().max() <= 1e-12 * kernel.abs().max() * 10
    assert float(terms.sigma[0, 3] / terms.sigma[0, 0]) < 1e-7


@pytest.mark.parametrize(
    ("shape", "rank", "parameters", "macs_per_pixel"),
    [
        # P = R (F1 C1 k1 + F2 C2 k2); MACs = R C1 F2 (C2 k2 + F1 k1) with B first.
        (KroneckerShape((16, 4), (16, 4), (3, 1), (1, 3)), 8, 8 * (768 + 48), 8 * 16 * 4 * (4 * 3 + 16 * 3)),
        (KroneckerShape((64, 1), (1, 64), (1, 3), (1, 3)), 11, 11 * (64 + 64 * 9), 11 * (64 * 9 + 64)),
        (KroneckerShape((64, 1), (1, 64), (1, 3), (3, 1)), 19, 19 * (64 * 3 + 64 * 3), 19 * (64 * 3 + 64 * 3)),
        (KroneckerShape((8, 8), (8, 8), (3, 1), (3, 1)), 11, 11 * (8 * 8 * 9 + 8 * 8), 11 * 8 * 8 * (8 + 8 * 9)),
    ],
)
def test_counts_of_the_paper(shape: KroneckerShape, rank: int, parameters: int, macs_per_pixel: int) -> None:
    network = shape.network(rank)
    geometry = Geometry(padding=((1, 1), (1, 1)))
    assert network.parameters == parameters
    # Per pixel on a large image, where the padded border of an earlier stage does not count.
    assert network.macs((1, 0), (4000, 4000), geometry) / 4000**2 == pytest.approx(macs_per_pixel, rel=1e-3)


def test_separable_rank_one_saves_what_the_paper_says() -> None:
    """Dense over GKPD = 3 F1 C2 / (F1 + C2) for a separable 3x3 split and one term."""
    f1, c2 = 16, 8
    shape = KroneckerShape((f1, 4), (8, c2), (3, 1), (1, 3))
    network = shape.network(1)
    saving = dense_macs(shape.kernel_shape, (2000, 2000)) / network.macs((1, 0), (2000, 2000))
    assert saving == pytest.approx(3 * f1 * c2 / (f1 + c2), rel=2e-3)


@pytest.mark.parametrize(
    ("shape", "parameters_break_even", "macs_break_even"),
    [
        (KroneckerShape((64, 1), (1, 64), (1, 3), (1, 3)), 57.6, 57.6),
        (KroneckerShape((8, 8), (8, 8), (3, 1), (3, 1)), 57.6, 7.2),
    ],
)
def test_break_even_ranks(shape: KroneckerShape, parameters_break_even: float, macs_break_even: float) -> None:
    network = shape.network(1)
    size = (4000, 4000)
    geometry = Geometry(padding=((1, 1), (1, 1)))
    dense = dense_macs((64, 64, 3, 3), size, geometry)
    assert 64 * 64 * 9 / network.parameters == pytest.approx(parameters_break_even)
    assert dense / network.macs((1, 0), size, geometry) == pytest.approx(macs_break_even, rel=1e-3)


def test_every_shape_is_listed_once() -> None:
    listed = list(shapes((4, 6, 3, 3)))
    assert len(listed) == len(set(listed))
    assert all(s.kernel_shape == (4, 6, 3, 3) and s.max_rank > 1 for s in listed)
    # 3 splits of 4, 4 of 6, 2 of each window side, less those with one factor of size one.
    assert len(listed) == 3 * 4 * 2 * 2 - 2


def test_shape_is_read_back_and_refused() -> None:
    shape = KroneckerShape((16, 4), (1, 8), (3, 1), (1, 3), 2)
    assert KroneckerShape.parse(str(shape)) == shape
    for text in ("", "f 2x2", "f 2x2, c 2, h 1x1, w 1x1", "f axb, c 1x1, h 1x1, w 1x1"):
        with pytest.raises(StructureError, match="write it as"):
            KroneckerShape.parse(text)
    with pytest.raises(StructureError, match="at least 1 and at most"):
        shape.network(0)
    with pytest.raises(StructureError, match="is for a kernel"):
        shape.decompose(torch.zeros(3, 3, 3, 3))
