"""Files in float16 are read in float32, with the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from .single import expect_same, proto, random

if TYPE_CHECKING:
    from pathlib import Path

HALF = {"a": random(8, 4, 3, 3).astype(np.float16), "b": random(8).astype(np.float16),
        "c": random(6, 8, 1, 1).astype(np.float16)}  # fmt: skip
CHAIN = [
    helper.make_node("Conv", ["h", "a", "b"], ["t"], pads=[1] * 4),
    helper.make_node("Relu", ["t"], ["u"]),
    helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.float16(0.25))),
    helper.make_node("Mul", ["u", "k"], ["v"]),
    helper.make_node("Conv", ["v", "c"], ["w"]),
]


def test_weights_and_graph_in_float16_between_casts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        *CHAIN,
        helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT),
    ]
    hub = expect_same(tmp_path / "h.onnx", proto(nodes, HALF), tolerance=2e-3)
    assert [node.op_type for node in hub.model.graph] == ["Conv", "Relu", "Mul", "Conv"]
    assert [layer.frozen_reason for layer in hub.layers()] == [None, None]
    np.testing.assert_array_equal(hub.layers()[0].kernel, HALF["a"].astype(np.float32))


def test_inputs_and_outputs_in_float16(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["h"]),
        *CHAIN,
        helper.make_node("Identity", ["w"], ["y"]),
    ]
    expect_same(tmp_path / "h.onnx", proto(nodes, HALF, kind=TensorProto.FLOAT16), tolerance=2e-3)


@pytest.mark.parametrize("opset", [9, 13, 20])
def test_float16_within_a_branch(tmp_path: Path, opset: int) -> None:
    kind = TensorProto.FLOAT16
    then = helper.make_graph(
        [helper.make_node("Mul", ["h", "two"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", kind, None)],
        [numpy_helper.from_array(np.float16(2), "two")],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["e"])], "else", [], [helper.make_tensor_value_info("e", kind, None)]
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "one"], ["q"]),
        helper.make_node("Cast", ["x"], ["h"], to=kind),
        helper.make_node("If", ["q"], ["i"], then_branch=then, else_branch=other),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    if opset > 17:
        nodes[0] = helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0, noop_with_empty_axes=0)
    expect_same(tmp_path / "h.onnx", proto(nodes, {"one": np.float32(1)}, opset=opset), tolerance=4e-3)
