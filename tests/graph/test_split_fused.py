"""What ONNX Runtime's optimizer fuses is split into the standard operators, with every activation and attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from edgekron.errors import UserError
from edgekron.graph import load

from .single import expect_same, proto, random

if TYPE_CHECKING:
    from pathlib import Path

MICROSOFT = "com.microsoft"
CONV = {"w": random(6, 4, 3, 3), "b": random(6)}
ACTIVATIONS: dict[str, list[float]] = {
    "Relu": [], "Sigmoid": [], "Tanh": [], "LeakyRelu": [0.2], "HardSigmoid": [0.3, 0.6], "Clip": [-0.2, 0.5],
}  # fmt: skip


def fused(operator: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x", *inputs], ["y"], name="fused", domain=MICROSOFT, **attributes)


def check(path: Path, node: onnx.NodeProto, constants: dict[str, Any], **how: Any) -> list[str]:
    nodes = how.pop("nodes", [])
    hub = expect_same(path / "f.onnx", proto([*nodes, node], constants, domains=(MICROSOFT,), **how))
    kinds = [n.op_type for n in hub.model.graph]
    assert all(not n.domain for n in hub.model.graph), kinds
    return kinds


@pytest.mark.parametrize("opset", [9, 11, 17])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convolutions(tmp_path: Path, activation: str, opset: int) -> None:
    given = {"activation": activation}
    if ACTIVATIONS[activation]:
        given |= {"activation_params": ACTIVATIONS[activation]}
    node = fused("FusedConv", "w", "b", pads=[1, 0, 1, 2], strides=[2, 1], **given)
    assert check(tmp_path, node, CONV, opset=opset) == ["Conv", activation]


def test_a_convolution_with_a_sum_and_without_a_bias(tmp_path: Path) -> None:
    other = helper.make_node("Conv", ["x", "v"], ["z"])
    node = fused("FusedConv", "w", "", "z", pads=[1] * 4, activation="Relu")
    kinds = check(tmp_path, node, {"w": random(6, 4, 3, 3), "v": random(6, 4, 1, 1)}, nodes=[other])
    assert kinds == ["Conv", "Conv", "Add", "Relu"]


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Tanh", "Sigmoid"])
def test_products_with_an_activation(tmp_path: Path, activation: str) -> None:
    given: dict[str, Any] = {"activation": activation, "transB": 1}
    if activation == "LeakyRelu":
        given["activation_alpha"] = 0.3
    kinds = check(tmp_path, fused("FusedGemm", "w", "b", **given), {"w": random(5, 8), "b": random(5)}, shape=(8,))
    assert kinds == ["Gemm", activation]


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, 0.125])
def test_products_of_matrices(tmp_path: Path, turned: int, alpha: float) -> None:
    weight = {"w": random(3, 5, 6) if turned else random(3, 6, 5)}
    check(tmp_path, fused("FusedMatMul", "w", transB=turned, alpha=alpha), weight, shape=(3, 4, 6))
    own = helper.make_node("Relu", ["x"], ["r"])
    node = helper.make_node("FusedMatMul", ["r", "x"], ["y"], domain=MICROSOFT, transA=1, alpha=alpha)
    check(tmp_path, node, {}, shape=(3, 4, 6), nodes=[own])


def test_a_product_behind_a_product(tmp_path: Path) -> None:
    """The shape of the second one's operand is known when the first is split."""
    first = helper.make_node("FusedMatMul", ["x", "x"], ["z"], domain=MICROSOFT, transB=1)
    node = helper.make_node("FusedMatMul", ["z", "x"], ["y"], domain=MICROSOFT, transA=1)
    check(tmp_path, node, {}, shape=(3, 4, 6), nodes=[first])


@pytest.mark.parametrize("operator", ["Gelu", "QuickGelu", "BiasGelu", "FastGelu"])
def test_gelu(tmp_path: Path, operator: str) -> None:
    inputs = ["b"] if operator in ("BiasGelu", "FastGelu") else []
    check(tmp_path, fused(operator, *inputs), {"b": random(6)} if inputs else {}, shape=(4, 6))
    if operator == "QuickGelu":
        check(tmp_path, fused(operator, alpha=1.0), {}, shape=(4, 6))


def test_a_file_that_the_optimizer_saved(tmp_path: Path) -> None:
    """Both kinds of layers, as ONNX Runtime leaves them, with each activation that it fuses."""
    weights = {f"w{i}": random(4, 4, 3, 3, seed=i) for i in range(6)} | {"low": np.float32(0), "high": np.float32(0.5)}
    nodes, value = [], "x"
    extra: dict[str, dict[str, Any]] = {"LeakyRelu": {"alpha": 0.1}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4}}
    for i, kind in enumerate(ACTIVATIONS):
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], pads=[1] * 4))
        limits = ["low", "high"] if kind == "Clip" else []
        value = "y" if i == len(ACTIVATIONS) - 1 else f"r{i}"
        nodes.append(helper.make_node(kind, [f"c{i}", *limits], [value], **extra.get(kind, {})))
    plain = proto(nodes, weights)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    ort.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    saved = onnx.load(tmp_path / "saved.onnx")
    assert "FusedConv" in {node.op_type for node in saved.graph.node}
    hub = expect_same(tmp_path / "again.onnx", saved)
    assert all(not node.domain for node in hub.model.graph)
    assert [layer.frozen_reason for layer in hub.layers()] == [None] * 6


def test_blocked_layouts_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="blocked", domain="com.microsoft.nchwc")
    model = proto([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": random(6, 4, 3, 3)})
    model.graph.node[0].CopyFrom(node)
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(UserError, match=r"b\.onnx: node blocked \(Conv\) holds its weights in a layout .*EXTENDED"):
        load(tmp_path / "b.onnx")
