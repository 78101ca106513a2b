"""EDP's algebra: exact at the start, real zeros by proximal steps, pairs merged by their MACs."""

from __future__ import annotations

import pytest
import torch

from edgekron.training.edp.blocks import LowRankBlock, balanced, merged, open_block, shrinkage, worth_a_pair


@pytest.mark.parametrize(
    ("channels", "window", "outputs", "limit"),
    [(64, 9, 64, 57.6), (512, 9, 512, 460.8), (64, 1, 256, 51.2)],
)
def test_the_merge_rule_recounts(channels: int, window: int, outputs: int, limit: float) -> None:
    dense = channels * window
    assert dense * outputs / (dense + outputs) == pytest.approx(limit)
    assert worth_a_pair(channels, window, outputs, int(limit))
    assert not worth_a_pair(channels, window, outputs, int(limit) + 1)


@pytest.mark.parametrize("shape", [(8, 5, 3, 3), (20, 4, 1, 1)])
@pytest.mark.parametrize("by_outputs", [False, True])
def test_a_block_is_exact_at_the_start(shape: tuple[int, ...], by_outputs: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
    outputs = torch.randn(200, shape[0], generator=generator, dtype=torch.float64)
    block = open_block(kernel, outputs.T.cov() if by_outputs else None)
    torch.testing.assert_close(block.kernel(), kernel)
    torch.testing.assert_close(balanced(block).kernel(), kernel)
    torch.testing.assert_close(block.coefficients.norm(dim=0), torch.ones(len(block.basis), dtype=torch.float64))


def test_a_block_by_outputs_has_uncorrelated_responses() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(6, 10, 1, 1, generator=generator, dtype=torch.float64)
    mixing = torch.randn(10, 10, generator=generator, dtype=torch.float64)
    inputs = torch.randn(500, 10, generator=generator, dtype=torch.float64) @ mixing
    block = open_block(kernel, (inputs @ kernel[:, :, 0, 0].T).T.cov())
    covariance = (inputs @ block.basis[:, :, 0, 0].T).T.cov()
    apart = covariance - covariance.diagonal().diag()
    assert float(apart.abs().max()) < 1e-9 * float(covariance.diagonal().max())


def test_the_penalty_cannot_be_scaled_away() -> None:
    block = open_block(torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    scaled = balanced(LowRankBlock(block.basis * 100, block.coefficients / 100))
    torch.testing.assert_close(scaled.coefficients, block.coefficients)
    torch.testing.assert_close(scaled.basis, block.basis)


def test_shrinkage_is_the_proximal_step_of_a_logarithm() -> None:
    """It ends where (s' - s)^2 / 2 + t log s' does not change, spares what is large, and makes real zeros."""
    sizes, penalties = torch.tensor([1.0, 0.5, 10.0, 0.79, 0.0]), torch.tensor([0.16, 0.0, 0.16, 0.16, 0.0])
    left = sizes * shrinkage(sizes, penalties)
    assert left.tolist() == pytest.approx([0.8, 0.5, 9.983974, 0.0, 0.0])
    slopes = (left - sizes + penalties / left)[:3]
    assert float(slopes.abs().max()) < 1e-6


def _proximal(block: LowRankBlock, rows: float, columns: float) -> LowRankBlock:
    block = balanced(block)
    sizes = block.kernel().flatten(1).norm(dim=1)
    coefficients = block.coefficients * shrinkage(sizes, torch.full_like(sizes, rows))[:, None]
    sizes = block.basis.flatten(1).norm(dim=1)
    return LowRankBlock(
        block.basis * shrinkage(sizes, torch.full_like(sizes, columns))[:, None, None, None], coefficients
    )


def test_proximal_steps_find_what_a_layer_needs() -> None:
    """A layer of rank 3 with two outputs of no use, opened with noise on it, comes out as it is, with real zeros."""
    generator = torch.Generator().manual_seed(0)
    basis, mixing = (torch.randn(size, generator=generator) for size in ((3, 10), (8, 3)))
    mixing = 2 * mixing / mixing.norm(dim=1, keepdim=True)
    mixing[[2, 5]] = 0
    wanted = mixing @ basis
    inputs = torch.randn(400, 10, generator=generator)
    block = open_block((wanted + 0.1 * torch.randn(8, 10, generator=generator))[:, :, None, None])
    rate = 0.003
    for _ in range(600):
        leaves = LowRankBlock(block.basis.detach().requires_grad_(), block.coefficients.detach().requires_grad_())
        loss = (inputs @ (leaves.kernel()[:, :, 0, 0] - wanted).T).square().sum(1).mean()
        slopes = torch.autograd.grad(loss, [leaves.basis, leaves.coefficients])
        moved = LowRankBlock(leaves.basis.detach() - rate * slopes[0], leaves.coefficients.detach() - rate * slopes[1])
        block = _proximal(moved, rows=rate, columns=4 * rate)
    outputs = block.coefficients.abs().sum(1) > 0
    assert outputs.tolist() == [i not in (2, 5) for i in range(8)]
    left = merged(LowRankBlock(block.basis, block.coefficients[outputs]))
    assert isinstance(left, LowRankBlock)
    assert len(left.basis) == 3
    error = (left.kernel()[:, :, 0, 0] - wanted[outputs]).norm() / wanted.norm()
    assert float(error) < 0.1


def test_a_pair_that_would_not_be_cheaper_becomes_one_layer() -> None:
    kernel = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = merged(open_block(kernel))
    assert isinstance(one, torch.Tensor)
    torch.testing.assert_close(one, kernel)
    nothing = merged(LowRankBlock(torch.ones(2, 3, 1, 1), torch.zeros(4, 2)))
    assert isinstance(nothing, torch.Tensor)
    assert not nothing.any()
