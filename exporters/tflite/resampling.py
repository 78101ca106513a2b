"""A resize along one axis as a matrix, for resizes that no operator of TFLite gives.

Every resize of ONNX is one matrix [outputs, inputs] for each axis, with few values in a row that are not zero. The
standard's reference gives the matrix, as its resize of the unit vectors, and

    y = sum over k of   weight_k * (x gathered at index_k)

with as many k as a row has values that are not zero: two for linear, four for cubic, one for nearest.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator

from .operators.gather import take
from .program import Program, Tensor
from .translation import Call

_ATTRIBUTES = (
    "mode",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "nearest_mode",
    "antialias",
)


def interpolation(call: Call, size: int, output: int, scale: float) -> np.ndarray:
    """The matrix [output, size] of a Resize node along an axis of ``size`` that becomes ``scale`` times larger."""
    given = [ir.serde.serialize_attribute(a) for a in call.node.attributes.values() if a.name in _ATTRIBUTES]
    # A whole number of pixels is given as a size: the reference places a single pixel in a way of its own.
    whole = abs(size * scale - output) < 1e-4
    if not whole and int(size * scale) != output:
        call.refuse(f"it makes {output} of {size} values by the scale {scale:g}", "give the sizes that it results in")
    target = "sizes" if whole else "scales"
    node = helper.make_node("Resize", ["x", "", "", "sizes"] if whole else ["x", "", "scales"], ["y"], axes=[1])
    node.attribute.extend(given)
    graph = helper.make_graph([node], "axis", [_value("x"), _value(target)], [_value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    inputs = {"x": np.eye(size), target: np.array([output], np.int64) if whole else np.array([scale], np.float32)}
    (columns,) = ReferenceEvaluator(model).run(None, inputs)
    return np.asarray(columns).T.astype(np.float32)


def resample(program: Program, x: Tensor, axis: int, matrix: np.ndarray, name: str) -> Tensor:
    """``x`` times ``matrix`` [outputs, inputs] along one axis of the tensor."""
    taps = max(int((matrix != 0).sum(axis=1).max()), 1)
    columns = np.sort(np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps], axis=1)
    weights = np.take_along_axis(matrix, columns, axis=1)
    total: Tensor | None = None
    for k in range(taps):
        part = take(program, x, axis, columns[:, k], f"{name}/axis{axis}", f"{name}/indices")
        if not np.all(weights[:, k] == 1):
            wide = weights[:, k].reshape(-1, *(1,) * (len(x.shape) - 1 - axis))
            part = program.emit(
                "MUL", [part, program.constant(f"{name}/weights", wide)], part.shape, f"{name}/weighted"
            )
        total = part if total is None else program.emit("ADD", [total, part], part.shape, f"{name}/sum{axis}")
    if total is None:
        raise AssertionError("every row has a tap")
    return total


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, onnx.TypeProto())
