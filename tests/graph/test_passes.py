"""Single passes, each against ONNX Runtime on the graph before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.graph.passes import fold_batch_norm, infer_shapes, make_padding_explicit

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
@pytest.mark.parametrize("kind", ["conv", "grouped", "gemm", "gemm transposed"])
def test_batch_norm_is_folded(kind: str, bias: bool) -> None:
    random = np.random.default_rng(0)
    shapes = {"conv": (6, 4, 3, 3), "grouped": (6, 2, 3, 3), "gemm": (4, 6), "gemm transposed": (6, 4)}
    attributes = {"conv": {}, "grouped": {"group": 2}, "gemm": {"transB": 0}, "gemm transposed": {"transB": 1}}
    image = len(shapes[kind]) == 4
    weights = {"layer.weight": random.standard_normal(shapes[kind]).astype(np.float32)}
    if bias:
        weights["layer.bias"] = random.standard_normal(6).astype(np.float32)
    weights |= {name: random.uniform(0.5, 2, 6).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    names = ["x", "layer.weight", *(["layer.bias"] if bias else [])]
    nodes = [
        helper.make_node("Conv" if image else "Gemm", names, ["a"], **attributes[kind]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["y"], epsilon=1e-3),
    ]
    shape = (2, 4, 7, 7) if image else (2, 4)
    proto = model_of(nodes, shape, (2, 6, 5, 5) if image else (2, 6), **weights)
    x = random.standard_normal(shape).astype(np.float32)
    model = ir.serde.deserialize_model(proto)
    infer_shapes(model)
    fold_batch_norm(model)
    assert [node.op_type for node in model.graph] == ["Conv" if image else "Gemm"]
    assert set(model.graph.initializers) == {"layer.weight", "layer.bias"}
    assert model.graph.outputs[0].name == "y"
    np.testing.assert_allclose(run(ir.serde.serialize_model(model), x), run(proto, x), atol=1e-5)
