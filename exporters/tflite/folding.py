"""Computes nodes that do not depend on the network's input, once, at export.

With a fixed batch every shape is known, so that the shape arithmetic of many ONNX files (Shape, Gather, Concat) becomes
a constant.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from .translation import Translation

#: Operators that need no values of their input, only its shape.
SHAPES = ("Shape", "Size")
_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def fold(translation: Translation, node: ir.Node) -> bool:
    """Computes a node from constants and known shapes; False if the node needs the network's input."""
    if node.domain:
        return False
    if any(attribute.type in _SUBGRAPHS for attribute in node.attributes.values()):
        return False
    if node.op_type in SHAPES and node.inputs[0] in translation.values:
        shape = translation.values[node.inputs[0]].shape
        if node.op_type == "Size":
            translation.constants[node.outputs[0]] = np.array(math.prod(shape), np.int64)
            return True
        start, end = (node.attributes.get(name) for name in ("start", "end"))
        taken = shape[start.value if start else 0 : end.value if end else len(shape)]
        translation.constants[node.outputs[0]] = np.array(taken, np.int64)
        return True
    given = [value for value in node.inputs if value is not None]
    if any(translation.constant(value) is None for value in given) or node.op_type.startswith("Random"):
        return False
    arrays = {value.name or "": translation.constant(value) for value in given}
    for value, result in zip(node.outputs, _evaluate(translation.opset, node, arrays), strict=False):
        translation.constants[value] = np.asarray(result)
    return True


def _evaluate(opset: int, node: ir.Node, arrays: dict[str, np.ndarray | None]) -> list[np.ndarray]:
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node)],
        "constant",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in arrays],
        [onnx.helper.make_value_info(value.name or "", onnx.TypeProto()) for value in node.outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return list(ReferenceEvaluator(model).run(None, arrays))
