"""Ranks that fill the blocks of output channels that a runtime computes at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save

from edgekron.graph import load
from edgekron.planning.candidates import candidates


def layer(path, outputs: int):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, 128, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "conv.weight"], ["y"], pads=[1, 1, 1, 1])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 128, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs, 8, 8])],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return load(path).layer("conv")


def ranks(one, method: str, fill: int) -> set[int]:
    found = candidates(one, torch.from_numpy(np.array(one.kernel)), None, method, fill=fill)
    return {rank for candidate in found[1:] for rank in candidate.ranks}


@pytest.mark.parametrize(
    ("method", "fill", "whole", "broken"),
    [
        # 6 times fewer MACs at rank 32: no whole block reaches what is beyond, half a block does at 16.
        ("low-rank", 32, {128, 96, 64, 32, 16}, {112, 80, 56, 48, 40, 24, 12}),
        ("channel-svd", 32, {96, 64, 32, 16}, {80, 56, 48, 40, 24, 12}),
        ("low-rank", 16, {128, 112, 96, 80, 64, 48, 32, 16}, {56, 40, 24, 12}),
    ],
)
def test_ranks_are_whole_blocks_as_far_as_they_go(tmp_path, method, fill, whole, broken):
    one = layer(tmp_path / "net.onnx", 128)
    found = ranks(one, method, fill)
    assert found & broken == set()
    assert {32, 64, 96} <= found & whole
    # The largest saving is at least as large as without.
    assert min(found) <= min(ranks(one, method, 1))


def test_a_layer_that_pads_itself_allows_its_candidates_as_much(tmp_path):
    """24 outputs are 32 in blocks of 32, dense or not."""
    assert 32 in ranks(layer(tmp_path / "net.onnx", 24), "low-rank", 32)


def test_without_a_block_nothing_is_preferred(tmp_path):
    assert 48 in ranks(layer(tmp_path / "net.onnx", 128), "low-rank", 1)
