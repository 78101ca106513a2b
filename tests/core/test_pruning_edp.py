"""EDP's algebra: exact at the start, real zeros by proximal steps, pairs merged by their MACs."""

from __future__ import annotations

import pytest
import torch

from edgekron.pruning.edp import Block, open_block, proximal, prune_and_merge, worth_a_pair


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
def test_a_block_is_exact_at_the_start(shape: tuple[int, ...]) -> None:
    kernel = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    block = open_block(kernel)
    torch.testing.assert_close(block.kernel(), kernel)
    torch.testing.assert_close(proximal(block, rows=0, columns=0).kernel(), kernel)


def test_the_penalty_cannot_be_scaled_away() -> None:
    block = open_block(torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    scaled = Block(block.basis * 100, block.coefficients / 100)
    steps = [proximal(each, rows=0.2, columns=0.3) for each in (block, scaled)]
    torch.testing.assert_close(steps[0].kernel(), steps[1].kernel())


def test_proximal_steps_find_what_a_layer_needs() -> None:
    """A layer of rank 3 with two outputs of no use, learned from noise, comes out as it is, with real zeros."""
    generator = torch.Generator().manual_seed(0)
    basis, mixing = (torch.randn(size, generator=generator) for size in ((3, 10), (8, 3)))
    mixing = 2 * mixing / mixing.norm(dim=1, keepdim=True)
    mixing[[2, 5]] = 0
    wanted = mixing @ basis
    inputs = torch.randn(400, 10, generator=generator)
    block = open_block(0.3 * torch.randn(8, 10, 1, 1, generator=generator))
    rate = 0.003
    for _ in range(1500):
        leaves = Block(block.basis.detach().requires_grad_(), block.coefficients.detach().requires_grad_())
        loss = (inputs @ (leaves.kernel()[:, :, 0, 0] - wanted).T).square().sum(1).mean()
        slopes = torch.autograd.grad(loss, [leaves.basis, leaves.coefficients])
        moved = Block(leaves.basis.detach() - rate * slopes[0], leaves.coefficients.detach() - rate * slopes[1])
        block = proximal(moved, rows=rate, columns=4 * rate)
    merged, outputs = prune_and_merge(block)
    assert outputs.tolist() == [i not in (2, 5) for i in range(8)]
    assert isinstance(merged, Block)
    assert len(merged.basis) == 3
    error = (merged.kernel()[:, :, 0, 0] - wanted[outputs]).norm() / wanted.norm()
    assert float(error) < 0.1


def test_a_pair_that_would_not_be_cheaper_becomes_one_layer() -> None:
    kernel = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    merged, outputs = prune_and_merge(open_block(kernel))
    assert isinstance(merged, torch.Tensor)
    assert outputs.all()
    torch.testing.assert_close(merged, kernel)
    nothing, outputs = prune_and_merge(Block(torch.ones(2, 3, 1, 1), torch.zeros(4, 2)))
    assert outputs.tolist() == [True, False, False, False]
    assert isinstance(nothing, torch.Tensor | Block)
