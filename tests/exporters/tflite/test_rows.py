"""Operators of one axis (Hardmax, TopK), triangles, and cells with peepholes, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgekron.exporters.tflite import UnsupportedError
from edgekron.exporters.tflite.convert import convert
from edgekron.exporters.tflite.read import Contents

Check = Callable[..., Contents]


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rounded(*nodes: Any) -> list[Any]:
    """Nodes behind a Round, so that many values are equal."""
    return [helper.make_node("Round", ["x"], ["r"]), *nodes]


@pytest.mark.parametrize(
    ("shape", "axis", "opset"),
    [
        ((2, 3, 7, 8), 1, 20),
        ((2, 3, 7, 8), -1, 20),
        ((2, 3, 7, 8), 0, 20),
        ((2, 3, 7, 8), 2, 12),
        ((4, 9), 1, 12),
        ((2, 3, 4, 2, 3), 2, 20),
    ],
)
def test_hardmax(agree: Check, shape: Sequence[int], axis: int, opset: int) -> None:
    agree(rounded(helper.make_node("Hardmax", ["r"], ["y"], axis=axis)), {}, shape, opset=opset)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize(("shape", "axis", "count"), [((2, 3, 7, 8), 1, 2), ((2, 3, 7, 8), -1, 8), ((4, 30), 1, 5)])
def test_the_greatest_and_where_they_are(
    agree: Check, shape: Sequence[int], axis: int, count: int, largest: int
) -> None:
    nodes = rounded(
        helper.make_node("TopK", ["r", "k"], ["y", "i"], axis=axis, largest=largest),
        helper.make_node("Cast", ["i"], ["z"], to=TensorProto.FLOAT),
    )
    agree(nodes, {"k": integers(count)}, shape, ["y", "z"])


def test_more_than_there_are_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["y", "i"], name="top")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [helper.make_tensor("k", TensorProto.INT64, [1], [5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(UnsupportedError, match="'top'.*takes 5 of 4 values"):
        convert(ir.serde.deserialize_model(model))


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("diagonal", [None, 0, 2, -3, 90, -90])
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (6, 5)])
def test_triangles(agree_one: Check, shape: Sequence[int], diagonal: int | None, upper: int) -> None:
    constants = [] if diagonal is None else [np.array(diagonal, np.int64)]
    agree_one("Trilu", shape, *constants, upper=upper)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("started", [False, True])
def test_peepholes(agree: Check, direction: str, started: bool) -> None:
    ways = 2 if direction == "bidirectional" else 1
    constants = {
        "w": floats(ways, 24, 4, seed=1) / 2,
        "r": floats(ways, 24, 6, seed=2) / 2,
        "b": floats(ways, 48, seed=3),
        "p": floats(ways, 18, seed=4),
    }
    state = ["", ""]
    if started:
        state = ["h", "c"]
        constants |= {"h": floats(ways, 3, 6, seed=5), "c": floats(ways, 3, 6, seed=6)}
    inputs = ["x", "w", "r", "b", "", *state, "p"]
    node = helper.make_node("LSTM", inputs, ["y", "last", "cell"], direction=direction, hidden_size=6)
    agree([node], constants, (5, 3, 4), ["y", "last", "cell"])
