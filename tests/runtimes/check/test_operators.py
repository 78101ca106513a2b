"""Operators are counted as the libraries that write the files count them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.check.operators import count_operators


def branch(name: str, kind: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node(kind, ["x"], ["out"])], name, [], [value])


def test_onnx_operators_with_those_inside_branches(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], name="second", doc_string="words"),
        helper.make_node("Kron", ["b"], ["c"], domain="custom"),
        helper.make_node("If", ["yes"], ["d"], then_branch=branch("t", "Sin"), else_branch=branch("e", "Cos")),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.arange(1000, dtype=np.float32), "big")],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(graph), path)
    assert count_operators(path) == {"Relu": 2, "Kron": 1, "If": 1, "Sin": 1, "Cos": 1}


def test_tflite_operators(write_tflite) -> None:
    path = write_tflite(np.zeros((4, 3, 3, 3), np.float32), (8, 8))
    assert count_operators(path) == {"CONV_2D": 1, "MEAN": 1}
    assert count_operators(path)["TRANSPOSE"] == 0


def test_onnx_agrees_with_the_library_on_a_real_file(write_onnx) -> None:
    path = write_onnx(np.zeros((4, 3, 3, 3), np.float32), (8, 8))
    assert count_operators(path) == Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite"])
def test_what_is_no_model_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        count_operators(path)
    random = np.random.default_rng(0)
    for size in (1, 7, 400):
        path.write_bytes(b"\x3a" + random.integers(0, 256, size, np.uint8).tobytes())
        with pytest.raises(RuntimeFailure, match="damaged"):
            count_operators(path)
    with pytest.raises(RuntimeFailure, match="neither"):
        count_operators(Path(__file__))
