"""A node of any opset in any other: the same numbers in ONNX Runtime, or a sentence that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.errors import UserError
from edgekron.graph.opsets import convert_opset

RANDOM = np.random.default_rng(0)
CHANNELS = RANDOM.normal(size=6).astype(np.float32)
GRID = RANDOM.uniform(-1, 1, (2, 5, 5, 2)).astype(np.float32)
PADS, AXES = np.array([1, 2, 0, 1]), np.array([2, 3])
POOL: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1}

#: (operator, its opset, inputs behind x by name or None, attributes)
DOWN: list[tuple[str, int, list[np.ndarray | None], dict[str, Any]]] = [
    ("Swish", 24, [], {"alpha": 0.7}),
    ("GlobalMaxPool", 22, [], {}),
    ("Mish", 22, [], {}),
    ("GroupNormalization", 21, [CHANNELS, CHANNELS], {"num_groups": 3}),
    ("GroupNormalization", 18, [CHANNELS[:3], CHANNELS[:3]], {"num_groups": 3}),
    ("Gelu", 20, [], {"approximate": "tanh"}),
    ("Gelu", 20, [], {}),
    ("LpPool", 20, [], {"kernel_shape": [2, 2], "p": 2, "ceil_mode": 0}),
    ("Split", 20, [], {"axis": 1, "num_outputs": 3}),
    ("Split", 20, [np.array([2, 4])], {"axis": -3}),
    ("Pad", 20, [PADS, None, AXES], {"mode": "reflect"}),
    ("Pad", 20, [PADS, np.array(2, np.float32), AXES], {}),
    ("Resize", 20, [None, np.array([2, 1.5], np.float32)], {"mode": "linear", "axes": [2, 3], "antialias": 0}),
    ("Resize", 20, [None, None, np.array([16, 12])], {"mode": "nearest", "axes": [2, 3]}),
    ("ReduceMax", 20, [AXES], {}),
    ("AveragePool", 20, [], {**POOL, "dilations": [1, 1], "count_include_pad": 1}),
    ("GridSample", 20, [GRID], {"mode": "cubic", "padding_mode": "border"}),
    ("GridSample", 20, [GRID], {"mode": "linear"}),
    ("ConstantOfShape", 20, [], {}),
]  # fmt: skip
UP: list[tuple[str, int, list[np.ndarray | None], dict[str, Any]]] = [
    ("Softmax", 11, [], {"axis": 1}),
    ("Split", 11, [], {"axis": 1, "split": [2, 4]}),
    ("Unsqueeze", 11, [], {"axes": [0, 2]}),
    ("ReduceSum", 12, [], {"axes": [1], "keepdims": 0}),
    ("ReduceMean", 17, [], {"axes": [2, 3]}),
    ("Clip", 11, [np.float32(-0.5), np.float32(0.5)], {}),
    ("Resize", 11, [np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    ("Pad", 11, [np.array([0, 0, 1, 2, 0, 0, 0, 1])], {"mode": "edge"}),
    ("MaxPool", 11, [], POOL),
    ("AveragePool", 11, [], POOL),
]


def model(operator: str, opset: int, inputs: list[np.ndarray | None], attributes: dict[str, Any]) -> onnx.ModelProto:
    """One node on x [2, 6, 8, 8]."""
    count = attributes.get("num_outputs", len(attributes.get("split", [])) or 1 + (operator == "Split"))
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(inputs)]
    nodes = [helper.make_node(operator, ["x", *names], [f"y{i}" for i in range(count)], name="it", **attributes)]
    if operator == "ConstantOfShape":
        nodes = [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["ones"], name="it"),
            helper.make_node("Sub", ["x", "ones"], ["y0"]),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6, 8, 8])],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(count)],
        [numpy_helper.from_array(np.asarray(v), n) for v, n in zip(inputs, names, strict=True) if v is not None],
    )
    version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def run(proto: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(1).standard_normal((2, 6, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def identifier(case: Any) -> str:
    return case[0] + str(case[1]) if isinstance(case, tuple) else str(case)


@pytest.mark.parametrize(
    ("case", "target"),
    [*((case, target) for case in DOWN for target in (17, 18, 19, 20, 21) if target < case[1]),
     *((case, 20) for case in UP)],
    ids=identifier,
)  # fmt: skip
def test_the_same_numbers(case: tuple, target: int) -> None:
    proto = model(*case)
    converted = ir.serde.serialize_model(convert_opset(ir.serde.deserialize_model(proto), target, "f.onnx", "use 20"))
    assert [(entry.domain, entry.version) for entry in converted.opset_import] == [("", target)]
    onnx.checker.check_model(converted)
    for before, after in zip(run(proto), run(converted), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (("BitwiseNot", 20, [], {}), "node it is BitwiseNot, which opset 17 does not have; use 20"),
        (("Pad", 20, [np.array([0, 0, 1, 1, 0, 0, 1, 1])], {"mode": "wrap"}), "node it is Pad, whose mode wrap"),
        (("AveragePool", 20, [], {"kernel_shape": [2, 2], "dilations": [2, 2]}), "AveragePool, whose dilations"),
        (("Resize", 20, [None, np.float32([1, 1, 0.5, 0.5])], {"mode": "linear", "antialias": 1}), "antialias 1"),
    ],
)
def test_what_an_older_opset_cannot_say_is_refused(case: tuple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        convert_opset(ir.serde.deserialize_model(model(*case)), 17, "f.onnx", "use 20")
