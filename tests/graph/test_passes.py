"""Single passes, each against ONNX Runtime on the graph before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from edgekron.graph.passes import fold_batch_norm, infer_shapes, make_padding_explicit, rows_as_images

if TYPE_CHECKING:
    from collections.abc import Sequence


def model_of(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int], output: Sequence[Any], **weights: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size", [(9, 8), (7, 12)])
@pytest.mark.parametrize(
    ("stride", "dilation", "window"), [(1, 1, (3, 2)), (2, 1, (3, 3)), (3, 1, (2, 5)), (1, 2, (3, 2)), (2, 1, (1, 4))]
)
def test_explicit_padding(
    mode: str, size: tuple[int, int], stride: int, dilation: int, window: tuple[int, int]
) -> None:
    weight = np.random.default_rng(0).standard_normal((2, 3, *window)).astype(np.float32)
    # ONNX Runtime refuses "same" padding with a dilation; a kernel with zeros in between is the same convolution.
    spread = np.zeros((2, 3, *(dilation * (k - 1) + 1 for k in window)), np.float32)
    spread[:, :, ::dilation, ::dilation] = weight
    shape, attributes = [1, 2, "h", "w"], {"auto_pad": mode, "strides": [stride] * 2}
    plain = model_of([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], [1, 3, *size], shape, w=spread)
    node = helper.make_node("Conv", ["x", "w"], ["y"], dilations=[dilation] * 2, **attributes)
    proto = model_of([node], [1, 3, *size], shape, w=weight)
    x = np.random.default_rng(1).standard_normal((1, 3, *size)).astype(np.float32)
    model = ir.serde.deserialize_model(proto)
    make_padding_explicit(model)
    conv = model.graph[0]
    assert "auto_pad" not in conv.attributes
    assert len(conv.attributes["pads"].as_ints()) == 4
    np.testing.assert_allclose(run(ir.serde.serialize_model(model), x), run(plain, x), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["conv", "grouped", "spread", "gemm", "gemm transposed"])
def test_batch_norm_is_folded(kind: str, bias: bool) -> None:
    random = np.random.default_rng(0)
    shapes = {"conv": (6, 4, 3, 3), "grouped": (6, 2, 3, 3), "gemm": (4, 6), "gemm transposed": (6, 4)}
    attributes = {"conv": {}, "grouped": {"group": 2}, "gemm": {"transB": 0}, "gemm transposed": {"transB": 1}}
    # A transposed convolution in two groups, [C, F / groups, kh, kw].
    shapes["spread"], attributes["spread"] = (4, 3, 3, 3), {"group": 2, "pads": [2, 2, 2, 2]}
    operator = {"spread": "ConvTranspose"}.get(kind, "Conv" if len(shapes[kind]) == 4 else "Gemm")
    image = len(shapes[kind]) == 4
    weights = {"layer.weight": random.standard_normal(shapes[kind]).astype(np.float32)}
    if bias:
        weights["layer.bias"] = random.standard_normal(6).astype(np.float32)
    weights |= {name: random.uniform(0.5, 2, 6).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    names = ["x", "layer.weight", *(["layer.bias"] if bias else [])]
    nodes = [
        helper.make_node(operator, names, ["a"], **attributes[kind]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["y"], epsilon=1e-3),
    ]
    shape = (2, 4, 7, 7) if image else (2, 4)
    proto = model_of(nodes, shape, (2, 6, 5, 5) if image else (2, 6), **weights)
    x = random.standard_normal(shape).astype(np.float32)
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model)
    fold_batch_norm(model)
    assert [node.op_type for node in model.graph] == [operator]
    assert set(model.graph.initializers) == {"layer.weight", "layer.bias"}
    assert model.graph.outputs[0].name == "y"
    np.testing.assert_allclose(run(ir.serde.serialize_model(model), x), run(proto, x), atol=1e-5)


def test_batch_norm_behind_shared_weights_stays() -> None:
    random = np.random.default_rng(0)
    weights = {"layer.weight": random.standard_normal((4, 4, 3, 3)).astype(np.float32)}
    weights |= {name: random.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    nodes = [
        helper.make_node("Conv", ["x", "layer.weight"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Conv", ["b", "layer.weight"], ["y"]),
    ]
    model = ir.serde.deserialize_model(model_of(nodes, (2, 4, 7, 7), (2, 4, 3, 3), **weights))
    fold_batch_norm(model)
    assert [node.op_type for node in model.graph] == ["Conv", "BatchNormalization", "Conv"]


def test_a_chain_of_rows_has_one_unsqueeze_and_one_squeeze() -> None:
    random = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return random.uniform(0.5, 1, shape).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], name="a", strides=[2], pads=[1, 2], dilations=[2]),
        helper.make_node("BatchNormalization", ["a", *["norm"] * 4], ["n"], name="n"),
        helper.make_node("AveragePool", ["n"], ["p"], name="p", kernel_shape=[3], pads=[1, 1], count_include_pad=1),
        # Constants of each rank: along the sequence, for each channel, and for each value.
        helper.make_node("Add", ["p", "along"], ["q"], name="q"),
        helper.make_node("Mul", ["scale", "q"], ["r"], name="r"),
        helper.make_node("Sub", ["r", "each"], ["s"], name="s"),
        helper.make_node("Conv", ["s", "b.weight", "b.bias"], ["t"], name="t", group=2, auto_pad="SAME_UPPER"),
        helper.make_node("Add", ["t", "s"], ["u"], name="u"),
        helper.make_node("ConvTranspose", ["u", "c.weight"], ["v"], name="v", strides=[2], output_padding=[1]),
        helper.make_node("GlobalMaxPool", ["v"], ["w"], name="w"),
        helper.make_node("Mul", ["v", "w"], ["y"], name="y"),
    ]
    length = (13 + 3 - 4 - 1) // 2 + 1
    weights = {
        "a.weight": array(4, 3, 3), "norm": array(4), "along": array(length), "scale": array(4, 1),
        "each": array(1, 4, length), "b.weight": array(4, 2, 3), "b.bias": array(4), "c.weight": array(4, 2, 3),
    }  # fmt: skip
    proto = model_of(nodes, (2, 3, 13), (2, 2, 2 * length + 2), **weights)
    x = random.standard_normal((2, 3, 13)).astype(np.float32)
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model)
    rows_as_images(model)
    common.RemoveUnusedNodesPass()(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["Unsqueeze", *(node.op_type for node in nodes), "Squeeze"]
    assert model.graph.outputs[0].name == "y"
    assert {len(model.graph.initializers[f"{name}.weight"].shape) for name in "abc"} == {4}
    np.testing.assert_allclose(run(ir.serde.serialize_model(model), x), run(proto, x), rtol=1e-5)


def test_rows_stay_where_their_weights_are_used_elsewhere() -> None:
    weight = np.ones((3, 3, 1), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "w"], ["y"])]
    model = ir.serde.deserialize_model(model_of(nodes, (3, 3, 1), (3, 3, 1), w=weight))
    rows_as_images(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Add"]
