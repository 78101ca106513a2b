"""Scattering and unpooling against ONNX Runtime: indices that are constant, and those that a pool gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import UnsupportedError, export_tflite
from edgekron.exporters.tflite.convert import convert
from edgekron.exporters.tflite.read import Contents
from edgekron.graph import load

Check = Callable[..., Contents]
SHAPE = (2, 3, 4, 5)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("indices", "updates"),
    [
        ([[0], [1]], (2, 3, 4, 5)),
        ([[1, 2], [0, -1]], (2, 4, 5)),
        ([[[0, 0, 1], [0, 1, -2]], [[1, 2, 3], [1, 2, 0]]], (2, 2, 5)),
        ([[0, 0, 0, 0], [1, 2, 3, 4], [1, 0, -1, -2]], (3,)),
    ],
)
def test_slices_at_constant_indices(agree: Check, indices: list[Any], updates: Sequence[int]) -> None:
    constants = {"i": np.array(indices, np.int64), "u": floats(*updates)}
    agree([helper.make_node("ScatterND", ["x", "i", "u"], ["y"])], constants, SHAPE)


def test_computed_updates_of_a_constant(agree: Check) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["u"]),
        helper.make_node("ScatterND", ["d", "i", "u"], ["y"]),
    ]
    constants = {"d": floats(200), "i": np.arange(150, 30, -1).reshape(120, 1), "s": np.array([120])}
    agree(nodes, constants, SHAPE)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_values_at_constant_indices(agree: Check, axis: int) -> None:
    shape = [1 if place == axis % 4 else n for place, n in enumerate(SHAPE)]
    constants = {"i": np.full(shape, -2), "u": floats(*shape)}
    agree([helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=axis)], constants, SHAPE)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [2, 3], "strides": [3, 3], "pads": [1, 0, 0, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "storage_order": 1},
        {"kernel_shape": [1, 1], "strides": [2, 1]},
        {"kernel_shape": [2, 2], "strides": [4, 4], "dilations": [3, 2], "ceil_mode": 1},
    ],
)
def test_places_of_the_greatest(agree: Check, attributes: dict[str, Any]) -> None:
    """Of rounded values, among which many are equal."""
    nodes = [
        helper.make_node("Round", ["x"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y", "i"], **attributes),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["f", "y"], ["z"]),
    ]
    agree(nodes, {}, (2, 3, 8, 9), ["y", "z"])


def test_unpooled_where_the_pool_took_it(agree: Check) -> None:
    pool = {"kernel_shape": [2, 3], "strides": [2, 3]}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p", "i"], **pool),
        helper.make_node("Neg", ["p"], ["n"]),
        helper.make_node("MaxUnpool", ["n", "i"], ["y"], **pool),
    ]
    assert "SCATTER_ND" in agree(nodes, {}, (2, 3, 8, 9)).operators


def test_unpooled_at_constant_indices(agree: Check) -> None:
    indices = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5) * 4 + 3
    node = helper.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    assert "SCATTER_ND" not in agree([node], {"i": indices}, SHAPE).operators


class Unpooled(nn.Module):
    """The middle of a network like SegNet."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, places = self.pool(torch.relu(self.down(x)))
        return self.up(self.unpool(x, places))


def test_unpooling_of_a_torch_network(tflite_equals: Callable[..., Contents]) -> None:
    torch.manual_seed(0)
    hub = load(Unpooled().eval(), input_shape=(3, 16, 20))
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 20)).astype(np.float32)
    assert "SCATTER_ND" in tflite_equals(export_onnx(hub), export_tflite(hub), x).operators


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (helper.make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[3, 3], strides=[2, 2]), "windows share pixels"),
        (helper.make_node("ScatterElements", ["x", "c", "x"], ["i"], reduction="add"), "it reduces what it scatters"),
        (
            helper.make_node("MaxUnpool", ["x", "c", "o"], ["i"], kernel_shape=[2, 2], strides=[2, 2]),
            r"its output \[1, 1, 9, 8\] is not the \[1, 1, 8, 8\]",
        ),
    ],
)
def test_refusals(node: Any, sentence: str) -> None:
    graph = helper.make_graph(
        [node, helper.make_node("Cast", ["i"], ["y"], to=1)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("c", TensorProto.INT64, [1, 1, 4, 4], range(16)),
            helper.make_tensor("o", TensorProto.INT64, [4], [1, 1, 9, 8]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(UnsupportedError, match=sentence):
        convert(ir.serde.deserialize_model(model))
