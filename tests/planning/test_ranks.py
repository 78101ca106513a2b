"""Rank rules: energy, variational Bayes, and the path of a structure with several ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekron.planning.ranks import Energy, Evbmf, evbmf_rank, path, rounded
from edgekron.structures import CP, KroneckerShape, Spectrum, TensorTrain, Tucker2


@pytest.mark.parametrize(("rank", "wanted"), [(1.9, 1), (3.2, 3), (7, 6), (9, 8), (15, 12), (31.9, 24), (47, 32)])
def test_ranks_are_multiples_that_runtimes_like(rank: float, wanted: int) -> None:
    assert rounded(rank) == wanted


@pytest.mark.parametrize(("share", "rank"), [(0.3, 1), (0.5, 2), (0.69, 2), (0.7, 3), (0.9, 4), (0.999, 4)])
def test_energy_keeps_more_than_its_share(share: float, rank: int) -> None:
    values = torch.tensor([[5.0, 2.0, 2.0, 1.0]])
    assert Energy(share).ranks([Spectrum(values, 9), Spectrum(values, 4)]) == (rank, rank)


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "noise"), [(60, 200, 5, 0.5), (64, 576, 12, 1.0), (40, 40, 3, 0.1)]
)
def test_evbmf_finds_the_rank_of_a_noisy_matrix(rows: int, columns: int, rank: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    noisy = clean + noise * rng.standard_normal((rows, columns))
    assert evbmf_rank(np.linalg.svd(noisy, compute_uv=False), columns) == rank


def test_evbmf_finds_nothing_in_noise() -> None:
    rng = np.random.default_rng(1)
    singular = np.linalg.svd(rng.standard_normal((50, 300)), compute_uv=False)
    assert evbmf_rank(singular, 300) == 0
    assert Evbmf().ranks([Spectrum(torch.from_numpy(singular**2)[None], 300)]) == (0,)


@pytest.mark.parametrize(
    "structure",
    [Tucker2((32, 24, 3, 3)), TensorTrain.parse("c 24 | h 3 | w 3 | f 32"), CP((16, 12, 3, 3)),
     KroneckerShape((32, 1), (1, 24), (1, 3), (3, 1))],
    ids=str,
)  # fmt: skip
def test_a_path_climbs_from_little_to_nearly_everything(structure: object) -> None:
    kernel = torch.randn(structure.kernel_shape, generator=torch.Generator().manual_seed(0))
    terms = structure.decompose(kernel)
    ranks = path(structure, terms.spectra)
    assert len(set(ranks)) == len(ranks) >= 8
    assert all(1 <= r <= m for one in ranks for r, m in zip(one, structure.max_ranks, strict=True))
    parameters = [structure.network(*one).parameters for one in ranks]
    assert parameters == sorted(parameters)
    assert parameters[-1] > 0.5 * structure.network(*structure.max_ranks).parameters
