"""What cannot be exported exactly is refused in one error, and nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.errors import UserError
from edgekron.exporters.tflite import UnsupportedError, export_tflite
from edgekron.exporters.tflite.convert import convert
from edgekron.graph import Hub


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str | None] = ("N", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    **constants: np.ndarray,
) -> ir.Model:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(a, name.replace("__", ".")) for name, a in constants.items()]
    graph = helper.make_graph(list(nodes), "test", [x], [y], initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.serde.deserialize_model(proto)


def node(operator: str, inputs: Sequence[str] = ("x",), output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output], name=f"the {operator}", **attributes)


KERNEL = np.ones((4, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (model([node("Det")]), "Det node 'the Det'.*no translation.*export to ONNX"),
        (model([node("Gemm", ["x", "x"])], ("N", 1)), "its second matrix is computed while the network runs"),
        (model([node("Conv", ["x", "x"])]), "its weight is computed while the network runs"),
        (
            model([node("Conv", ["x", "stem.weight"])], stem__weight=KERNEL.astype(np.float64)),
            "layer 'stem'.*weight is float64.*convert the network to float32",
        ),
        (model([node("Conv", ["x", "w"])], ("N", 3, 2, 8), w=KERNEL), "window of 3x3 does not fit an input of 2x8"),
        (model([node("Conv", ["x", "w"])], ("N", 3, 8), w=KERNEL[:, :, 0]), "a 1-D convolution is not supported"),
        (model([node("LRN", size=4)]), "a window of 4 channels has no middle"),
        (model([node("Pad", ["x", "p"], mode="reflect")], p=np.array([0, 0, 8, 0] * 2)), "wider than the input"),
        (model([node("Celu", alpha=-0.5)]), "alpha is -0.5"),
        (
            model([node("Slice", ["x", "a", "b"])], a=np.array([3]), b=np.array([3])),
            "nothing is left of axis 0",
        ),
        (
            model([node("Reshape", ["x", "s"])], s=np.array([7, 7])),
            r"\[1, 3, 8, 8\] cannot be reshaped to \[7, 7\]",
        ),
        (model([node("Unsqueeze", ["x", "a"])], a=np.array([0, 1])), "6 axes, more than 5"),
    ],
)
def test_unsupported(graph: ir.Model, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        convert(graph)


def test_one_error_lists_every_node() -> None:
    nodes = [
        node("Relu", output="a"),
        node("Det", ["a"], "b"),
        node("Relu", ["b"], "c"),
        node("Celu", ["a"], "d", alpha=-2.0),
        node("Det", ["c"]),
    ]
    with pytest.raises(UnsupportedError, match=r"3 nodes: .*Det.* \| .*alpha is -2.0.* \| .*Det"):
        convert(model(nodes))


@pytest.mark.parametrize(
    ("graph", "batch", "message"),
    [
        (model([node("Relu")], ("N", 3, "H", 8)), 1, r"'x' has shape \['N', '3', 'H', '8'\].*give the input shape"),
        (model([node("Relu")], (4, 3, 8, 8)), 1, "fixed to 4; export with batch=4"),
        (model([node("Relu")]), 0, "a batch of 0"),
        (model([node("Relu")], kind=TensorProto.DOUBLE), 1, "'x' is DOUBLE"),
        (model([node("Identity", ["c"])], c=KERNEL), 1, "'y' does not depend on the input"),
    ],
)
def test_inputs_and_outputs(graph: ir.Model, batch: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(graph, batch=batch)


def test_nothing_is_written_or_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    with pytest.raises(UnsupportedError):
        export_tflite(Hub(model([node("Det")])), path)
    assert list(tmp_path.iterdir()) == []
    good = Hub(model([node("Relu")]))
    first = export_tflite(good, path)
    with pytest.raises(UserError, match=r"a\.tflite"):
        export_tflite(good, path)
    assert export_tflite(good, path, force=True) == first
