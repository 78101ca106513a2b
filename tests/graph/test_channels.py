"""Which axis of inputs and outputs holds the channels, followed through the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.graph.channels import input_channels, output_channels
from edgekron.graph.inputs import network_inputs

IN, OUT = [0, 3, 1, 2], [0, 2, 3, 1]


def node(operator: str, x: str, y: str, *more: str, **attributes: object) -> object:
    return helper.make_node(operator, [x, *more], [y], **attributes)


CONV = node("Conv", "a", "b", "w", pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    ("nodes", "shape", "entry", "leaves"),
    [
        ([node("Relu", "x", "a"), CONV, node("Relu", "b", "y")], [3, 8, 8], 1, 1),
        ([node("Transpose", "x", "a", perm=IN), CONV, node("Transpose", "b", "y", perm=OUT)], [8, 8, 3], 3, 3),
        ([node("Transpose", "x", "a", perm=IN), CONV, node("Sigmoid", "b", "y")], [8, 8, 3], 3, 1),
        ([node("Identity", "x", "a"), CONV, node("Transpose", "b", "y", perm=OUT)], [3, 8, 8], 1, 3),
        ([node("Identity", "x", "a"), CONV, node("Reshape", "b", "y", "s")], [3, 8, 8], 1, None),
        ([node("Identity", "x", "a"), CONV, node("MatMul", "b", "y", "m")], [3, 8, 8], 1, None),
        ([node("Relu", "x", "y")], [3, 8, 8], 1, 1),
    ],
)
def test_channels_are_followed(nodes: list[object], shape: list[int], entry: int, leaves: int | None) -> None:
    arrays = {
        "w": np.zeros((4, 3, 3, 3), np.float32),
        "s": np.array([0, 2, 2, 64], np.int64),
        "m": np.zeros((8, 8), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8 if entry == 3 else TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "a", "b", "c"])],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    model = ir.serde.deserialize_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    (given,) = network_inputs(model)
    assert (given.name, given.shape, given.channels) == ("x", tuple(shape), entry)
    assert given.image == (3, 8, 8)
    assert given.dtype == ("uint8" if entry == 3 else "float32")
    assert list(input_channels(model.graph).values()) == [entry]
    assert list(output_channels(model.graph).values()) in ([leaves], [] if leaves is None else [leaves])
