"""Corners that a compressor meets in the field: odd data, odd graphs, odd plans."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekron import models
from edgekron.compression.compressor import apply_plan, compress
from edgekron.errors import UserError
from edgekron.exporters.verify import compare, difference, open_version
from edgekron.graph import Hub, load
from edgekron.graph.cost import Cost, cost
from edgekron.modules.factorize import factorize_module
from edgekron.planning.survey import make_plan


class Two(nn.Module):
    """A network that also returns an early value."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, self.c(self.b(y).relu())


class Padded(nn.Module):
    """A convolution whose padding is reflected, or done by the forward."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        if mode == "functional":
            self.conv = nn.Conv2d(4, 16, 3)
        else:
            self.conv = nn.Conv2d(4, 16, 3, padding=1, padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (2, 0, 0, 1)) if self.mode == "functional" else x)


def images(count: int, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
    return list(np.array_split(x, math.ceil(count / 32)))


@pytest.fixture(scope="module")
def two() -> Hub:
    torch.manual_seed(0)
    return load(Two(), input_shape=(3, 10, 12))


@pytest.mark.thorough
@pytest.mark.parametrize("count", [1, 2, 7, 8, 33, 65])
def test_any_number_of_images_gives_the_ratio_that_was_asked_for(two: Hub, count: int) -> None:
    result = compress(two, model="two", ratios={"macs": 2.0}, data=images(count, (3, 10, 12)))
    assert 2.0 <= result.report.macs.ratio < 2.6
    assert all(np.isfinite(row.error or 0.0) for row in result.report.layers.values())


def test_images_that_are_all_the_same(two: Hub) -> None:
    one = images(1, (3, 10, 12))[0]
    result = compress(two, model="two", ratios={"macs": 2.0}, data=[np.repeat(one, 16, axis=0)])
    assert result.report.macs.ratio >= 2.0
    ends, _ = compare(open_version(two), open_version(result.hub), [("same", one)], {})
    assert max(row.relative for row in ends) < 0.5


def test_an_early_output_is_kept(two: Hub) -> None:
    data = images(32, (3, 10, 12))
    result = compress(two, model="two", ratios={"macs": 1.5}, data=data)
    ends, _ = compare(open_version(two), open_version(result.hub), [("data", data[0])], {})
    assert len(ends) == 2
    assert all(row.sqnr_db > 0 for row in ends)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "functional"])
def test_every_padding_survives_into_the_torch_model(mode: str) -> None:
    torch.manual_seed(0)
    module = Padded(mode).eval()
    hub = load(module, input_shape=(4, 9, 7))
    result = compress(hub, model="padded", ratios={"macs": 1.3})
    factorized = factorize_module(module, result.hub)
    x = torch.randn(2, 4, 9, 7)
    with torch.no_grad():
        wanted, got = module(x), factorized(x)
    assert got.shape == wanted.shape
    hub_output = open_version(result.hub).run(x.numpy())[result.hub.output_names[0]]
    np.testing.assert_allclose(got.numpy(), hub_output, atol=1e-5)


def test_what_is_compressed_is_not_compressed_again(two: Hub) -> None:
    result = compress(two, model="two", ratios={"macs": 2.0})
    for call in (
        lambda: compress(result.hub, model="two", ratios={"macs": 1.5}),
        lambda: apply_plan(result.hub, result.plan),
    ):
        with pytest.raises(UserError, match="compressed already; compress the original"):
            call()


def test_a_kernel_of_zeros_does_not_move_the_baseline() -> None:
    torch.manual_seed(0)
    module = Two()
    nn.init.zeros_(module.b.weight)
    hub = load(module, input_shape=(3, 10, 12))
    plan = make_plan(hub, model="two", ratios={"macs": 2.0})
    result = apply_plan(hub, plan)
    dense = sum(cost(layer).macs for layer in hub.layers())
    assert result.report.macs.dense == dense
    assert result.report.layers["b"].error == pytest.approx(0.0, abs=1e-9)
    # The empty layer is free to shrink, so the others need not.
    assert all(result.report.layers[name].method == "dense" for name in "ac")


def test_layers_of_every_kind_are_counted() -> None:
    torch.manual_seed(0)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(4, 6, 2, 2)
            self.line = nn.Conv1d(6, 8, 3, padding=1)
            self.tokens = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.tokens(self.line(self.up(x).flatten(2)).mT)

    layers = {layer.name: layer for layer in load(Mixed(), input_shape=(4, 3, 5)).layers()}
    assert [cost(layer) for layer in layers.values()] == [
        Cost(macs=4 * 3 * 5 * 6 * 2 * 2, parameters=4 * 6 * 2 * 2),
        Cost(macs=60 * 8 * 6 * 3, parameters=8 * 6 * 3),
        Cost(macs=60 * 8 * 5, parameters=40),
    ]
    assert [layer.frozen_reason is None for layer in layers.values()] == [True, True, False]


def test_nan_is_no_small_difference() -> None:
    one = np.ones((1, 3), np.float32)
    broken = np.array([[1.0, np.nan, 1.0]], np.float32)
    assert difference("y", "case", one, broken).relative == math.inf
    assert difference("y", "case", one, one).relative == 0.0
    assert difference("y", "case", 0 * one, 0 * one).relative == 0.0


def test_a_network_of_one_operator_can_be_verified() -> None:
    torch.manual_seed(0)
    hub = load(nn.Conv2d(3, 8, 3), input_shape=(3, 6, 6))
    version = open_version(hub)
    ends, layers = compare(version, version, [("one", images(1, (3, 6, 6))[0])], {})
    assert [row.relative for row in ends] == [0.0]
    assert [(row.name, row.relative) for row in layers] == [(hub.output_names[0], 0.0)]
    with pytest.raises(UserError, match=r"images are \[1, 28, 28\]; the network takes \[3, 6, 6\]"):
        compare(version, version, [("wrong", images(1, (1, 28, 28))[0])], {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": (0, 0)}, "no permutation"),
        ({"forms": {"onnx": ("fold",)}}, "cannot be lowered for onnx: 1 forms"),
        ({"shape": "f -16x-1, c 1x16, h 1x3, w 3x1"}, "write it as"),
    ],
)
def test_plans_are_checked_before_the_work(two: Hub, changes: dict[str, object], words: str) -> None:
    plan = make_plan(two, model="two", ratios={"macs": 2.0})
    name = next(n for n, line in plan.layers.items() if line.method != "dense")
    wrong = replace(plan, layers={name: replace(plan.layers[name], **changes)})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=words):
        apply_plan(two, wrong)


def test_negative_pads_are_refused(tmp_path: object) -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="shrink", pads=[-1, 0, 0, 0])
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 5, 5])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2, 2, 3])],
        [onnx.numpy_helper.from_array(np.ones((2, 2, 3, 3), np.float32), "w")],
    )
    path = f"{tmp_path}/negative.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(UserError, match=r"shrink \(Conv\) has negative pads"):
        load(path)


def test_networks_without_a_checkpoint_are_the_same_every_time() -> None:
    state = torch.random.get_rng_state()
    first, second = (models.load("resnet20-cifar").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(state, torch.random.get_rng_state())
