"""Refuses constants that are not finite and reach an output, with the name of their layer.

NaN is refused wherever it stands. An infinite value is legitimate as a limit or a filling (Clip, Max, Pad, Where, a
comparison, ...), and minus infinity as a mask that is added in front of a softmax. A mask that is moved or spread first
is followed to where it is used. Everywhere else an infinite value makes infinite or undefined outputs.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.errors import UserError

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
#: Operators that compare with an infinite value, fill with it or take it as a limit.
_LIMITING = {"Clip", "Max", "Min", "Where", "Pad", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf",
             "ScatterND", "ScatterElements", "NonMaxSuppression", "Attention", "If", "Loop", "Scan"}  # fmt: skip
#: Operators that move values and change none.
_MOVING = {"Cast", "Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Split",
           "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"}  # fmt: skip
#: Operators for which minus infinity is a number like others: nothing in a sum of exponentials, less than all else.
_EXPONENTIAL = {"Softmax", "LogSoftmax", "Exp", "Sigmoid", "ReduceMax", "ReduceLogSumExp", "ArgMax", "TopK", "Max",
                "MaxPool", "GlobalMaxPool"}  # fmt: skip
#: Operators that lie between the addition of a mask and the softmax.
_BETWEEN = _MOVING | {"Add", "Max", "Where"}


def check_finite(model: ir.Model, source: str) -> None:
    """Raises ``UserError`` that names the first layer with NaN or infinite weights."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.inputs:
            array = _floats(value)
            if value is None or array is None or np.isfinite(array).all():
                continue
            least, most = bool(np.isneginf(array).any()), bool(np.isposinf(array).any())
            if np.isnan(array).any() or not _legitimate(node, value, plus=most, minus=least):
                raise UserError(
                    f"{source}: the weights of layer {_layer(node, value)} contain NaN or infinite values; "
                    "the training that made them went wrong, use an earlier checkpoint"
                )
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.FLOAT and np.isnan(attribute.as_float()):
                raise UserError(
                    f"{source}: {attribute.name} of node {node.name or node.op_type} ({node.op_type}) is no number; "
                    "export the model again"
                )


def _floats(value: ir.Value | None) -> np.ndarray | None:
    if value is None or value.const_value is None or value.const_value.dtype not in _FLOATS:
        return None
    return value.const_value.numpy()


def _layer(node: ir.Node, value: ir.Value) -> str:
    name = str(value.name)
    return name.rsplit(".", 1)[0] if "." in name else f"{node.name or node.op_type} (tensor {name})"


def _legitimate(node: ir.Node, value: ir.Value, *, plus: bool, minus: bool) -> bool:
    """Whether a node may read a value that is infinite at some places."""
    if node.op_type in _LIMITING or node.domain not in ("", "ai.onnx"):
        return True
    if node.op_type in _MOVING:
        return all(
            not output.is_graph_output()
            and all(_legitimate(user, output, plus=plus, minus=minus) for user, _ in output.uses())
            for output in node.outputs
        )
    if node.op_type == "Sub" and value is node.inputs[1]:
        plus, minus = minus, plus
    if node.op_type in ("Add", "Sub"):
        return not plus and all(_ends_in_softmax(output) for output in node.outputs)
    return not plus and node.op_type in _EXPONENTIAL


def _ends_in_softmax(value: ir.Value, depth: int = 16) -> bool:
    """Whether every way from a value leads to an operator for which minus infinity is a number like others."""
    if value.is_graph_output() or not value.uses() or depth == 0:
        return False
    return all(
        user.op_type in _EXPONENTIAL
        or (user.op_type in _BETWEEN and all(_ends_in_softmax(output, depth - 1) for output in user.outputs))
        for user, _ in value.uses()
    )
