"""Folds a quantized graph back to the float one that it stands for.

    DequantizeLinear of a constant          the constant (q - zero point) * scale
    QuantizeLinear, DequantizeLinear        what they were given
    QLinearConv, QLinearMatMul, QGemm,
    QLinearAdd, QLinearSigmoid, ...         their float operators, of constants in float

A quantized value is cut off at the ends of its type, and quantizers leave out an activation that this cut replaces.
So a value whose zero point is the least integer goes through a Relu, or through Clip(0, 6) where its range ends within
one step of 6, unless it cannot be negative already. Other cuts are of outliers, and are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.nodes import add_initializer, remove_node
from edgekron.graph.values import constant, required

_MICROSOFT = "com.microsoft"
_CAP = 6.0


@dataclass(frozen=True)
class _Rule:
    """How an operator on integers becomes ``float_name``: the places of its data, each with scale and zero point
    behind, of the scale of its result, and of a bias that is in steps of the product of the first two scales.
    """

    float_name: str
    data: tuple[int, ...]
    result: int
    bias: int | None = None
    attributes: tuple[str, ...] = ()
    domain: str = _MICROSOFT


_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_RULES = {
    "QLinearConv": _Rule("Conv", (0, 3), 6, 8, _CONV, ""),
    "QLinearMatMul": _Rule("MatMul", (0, 3), 6, domain=""),
    "QGemm": _Rule("Gemm", (0, 3), 7, 6, ("alpha", "transA", "transB")),
    "QLinearAdd": _Rule("Add", (0, 3), 6),
    "QLinearMul": _Rule("Mul", (0, 3), 6),
    "QLinearSigmoid": _Rule("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": _Rule("LeakyRelu", (0,), 3, attributes=("alpha",)),
    "QLinearSoftmax": _Rule("Softmax", (0,), 3, attributes=("axis",)),
    "QLinearGlobalAveragePool": _Rule("GlobalAveragePool", (0,), 3),
    "QLinearAveragePool": _Rule("AveragePool", (0,), 3, attributes=_POOL),
    "QLinearConcat": _Rule("Concat", (), 0, attributes=("axis",)),
}
#: Operators that move integers and leave them what they are.
_MOVING = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Expand",
           "Identity", "DepthToSpace", "SpaceToDepth", "Concat", "Tile"}  # fmt: skip
_NONNEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Softplus"}
#: Operators whose results are not negative where none of their inputs is.
_KEEPING = {*_MOVING, "Add", "Mul", "AveragePool", "GlobalAveragePool", "ReduceMean", "QuantizeLinear",
            "DequantizeLinear"}  # fmt: skip
_ENDS = {ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127), ir.DataType.UINT16: (0, 65535),
         ir.DataType.INT16: (-32768, 32767), ir.DataType.UINT4: (0, 15), ir.DataType.INT4: (-8, 7)}  # fmt: skip


def quantized_operators(model: ir.Model) -> list[str]:
    """The names of the quantized operators of a graph, each once: those of QDQ, QOperator and dynamic files."""
    found = {
        node.op_type
        for node in model.graph
        if node.domain in ("", "ai.onnx", _MICROSOFT)
        and (node.op_type.startswith("QLinear") or node.op_type.endswith(("QuantizeLinear", "DequantizeLinear"))
             or node.op_type in ("QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits",
                                 "DynamicQuantizeMatMul", "QAttention", "QEmbedLayerNormalization"))
    }  # fmt: skip
    return sorted(found)


def check_float(model: ir.Model, what: str, remedy: str) -> None:
    """Raises ``UserError``, about ``what`` and with the ``remedy``, for a graph that is quantized already."""
    if found := quantized_operators(model):
        raise UserError(f"{what} is quantized already ({', '.join(found)}); {remedy}")


def dequantize(model: ir.Model, source: str) -> None:
    """Replaces all quantized operators, in place; see above.

    Raises ``UserError`` that names ``source`` and the node for one that has no float form here.
    """
    for node in list(model.graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in ("", _MICROSOFT):
            _drop(model.graph, node, source)
        elif node.op_type in _RULES and node.domain == _RULES[node.op_type].domain:
            _as_float(model.graph, node, source)
        elif node.op_type in _MOVING and not node.domain:
            _retype(node)
    if left := quantized_operators(model):
        node = next(node for node in model.graph if node.op_type == left[0])
        raise _refused(node, source, "has no float form")


def _drop(graph: ir.Graph, node: ir.Node, source: str) -> None:
    """Replaces QuantizeLinear or DequantizeLinear by what it was given."""
    if node.op_type == "QuantizeLinear":
        _replace(node, _cut(graph, node, required(node, 0), 1, source))
        return
    _replace(node, _operand(graph, node, 0, source, node.attributes.get_int("axis", 1)))


def _as_float(graph: ir.Graph, node: ir.Node, source: str) -> None:
    rule = _RULES[node.op_type]
    data = rule.data or tuple(range(2, len(node.inputs), 3))
    if node.attributes.get_int("channels_last", 0):
        raise _refused(node, source, "has its channels last")
    if node.op_type == "QLinearSoftmax" and node.attributes.get_int("opset", 13) < 13 and not _over_last(node):
        raise _refused(node, source, "is a softmax over several axes")
    rows = node.op_type == "QLinearConv" or node.attributes.get_int("transB", 0) == 1
    inputs = [_operand(graph, node, place, source, 0 if rows else -1) for place in data]
    if rule.bias is not None and len(node.inputs) > rule.bias and node.inputs[rule.bias] is not None:
        inputs.append(_bias(graph, node, rule, source))
    attributes = [node.attributes[name] for name in rule.attributes if name in node.attributes]
    new = ir.Node("", rule.float_name, inputs, attributes, name=node.name)
    graph.insert_before(node, new)
    new.outputs[0].name, new.outputs[0].dtype = f"{node.outputs[0].name}.float", ir.DataType.FLOAT
    new.outputs[0].shape = node.outputs[0].shape
    stated = len(node.inputs) > rule.result and node.inputs[rule.result] is not None
    _replace(node, _cut(graph, node, new.outputs[0], rule.result, source) if stated else new.outputs[0])


def _bias(graph: ir.Graph, node: ir.Node, rule: _Rule, source: str) -> ir.Value:
    value = required(node, rule.bias or 0)
    scales = [_array(node, place + 1, source).astype(np.float64).reshape(-1) for place in rule.data[:2]]
    steps = scales[0] * scales[1] * (node.attributes.get_float("alpha", 1.0) if rule.float_name == "Gemm" else 1.0)
    floats = _array(node, rule.bias or 0, source).astype(np.float64) * steps
    return add_initializer(graph, f"{value.name}.float", floats.astype(np.float32))


def _operand(graph: ir.Graph, node: ir.Node, place: int, source: str, axis: int) -> ir.Value:
    """The input at a place in float: what a node before has become, or a constant."""
    value = required(node, place)
    if value.const_value is not None:
        return _floats(graph, node, place, source, axis)
    if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
        raise _refused(node, source, f"takes integers {value.name} that were never float")
    return value


def _over_last(node: ir.Node) -> bool:
    """Whether the axis of a softmax is the last one."""
    axis, shape = node.attributes.get_int("axis", -1), required(node, 0).shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _floats(graph: ir.Graph, node: ir.Node, place: int, source: str, axis: int) -> ir.Value:
    """The constant at a place in float, by the scale and zero point behind it."""
    value, integers = required(node, place), _array(node, place, source)
    scale = _array(node, place + 1, source).astype(np.float32)
    zero = _zero(node, place + 2, source)
    if scale.ndim and scale.size > 1:
        along = [1] * integers.ndim
        along[axis] = -1
        if scale.ndim > 1 or integers.shape[axis] != scale.size:
            raise _refused(node, source, "is quantized in blocks")
        scale, zero = scale.reshape(along), zero.reshape(along) if zero.size > 1 else zero.reshape(())
    else:
        scale, zero = scale.reshape(()), zero.reshape(-1)[0]
    floats = (integers.astype(np.int64) - zero.astype(np.int64)).astype(np.float32) * scale
    return add_initializer(graph, f"{value.name}.float", floats.astype(np.float32))


def _cut(graph: ir.Graph, node: ir.Node, value: ir.Value, place: int, source: str) -> ir.Value:
    """The value behind the activation that cutting it off at the ends of its integers stands for."""
    zero = node.inputs[place + 1] if len(node.inputs) > place + 1 else None
    kind = ir.DataType.UINT8 if zero is None else zero.dtype
    least, most = _ENDS.get(kind or ir.DataType.UINT8, (0, 255))
    scale, offset = _array(node, place, source).reshape(-1), _zero(node, place + 1, source).reshape(-1)
    if len(offset) > 1 or int(offset[0]) != least or _cannot_be_negative(value):
        return value
    step = float(scale.max())
    if abs((most - least) * step - _CAP) <= step:
        ends = {"least": 0.0, "most": _CAP}
        limits = [add_initializer(graph, f"{value.name}.{end}", np.array(at, np.float32)) for end, at in ends.items()]
        new = ir.Node("", "Clip", [value, *limits])
    else:
        new = ir.Node("", "Relu", [value])
    graph.insert_before(node, new)
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = f"{value.name}.cut", value.type, value.shape
    return new.outputs[0]


def _cannot_be_negative(value: ir.Value, depth: int = 16) -> bool:
    """Whether a value is an image of the network, or a chain of operators says that it is not negative."""
    node = value.producer()
    if node is None:
        return value.const_value is None or bool((value.const_value.numpy() >= 0).all())
    if node.op_type in _NONNEGATIVE:
        return True
    if node.op_type == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and bool((low >= 0).all())
    data = node.inputs[:1] if node.op_type in _MOVING - {"Concat"} else node.inputs
    return (
        node.op_type in _KEEPING
        and depth > 0
        and all(x is not None and not x.is_graph_input() and _cannot_be_negative(x, depth - 1) for x in data)
    )


def _retype(node: ir.Node) -> None:
    """Gives the results of a node that moves values the type of what it moves, which was integers before."""
    x = node.inputs[0]
    if x is not None and x.dtype == ir.DataType.FLOAT:
        for output in node.outputs[: 1 if node.op_type == "MaxPool" else None]:
            output.dtype = ir.DataType.FLOAT


def _replace(node: ir.Node, value: ir.Value) -> None:
    """Puts a value in the place of a node's result, under the result's name where that is an output of the graph."""
    graph, y = node.graph, node.outputs[0]
    if y.is_graph_output() and (value.producer() is None or value.is_graph_output()):
        copy = ir.Node("", "Identity", [value])
        if graph is not None:
            graph.insert_before(node, copy)
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        value = copy.outputs[0]
    if y.is_graph_output():
        value.name, y.name = y.name, f"{y.name}.quantized"
        value.dtype, value.shape = ir.DataType.FLOAT, value.shape or y.shape
    ir.convenience.replace_all_uses_with(y, value, replace_graph_outputs=True)
    remove_node(node)


def _refused(node: ir.Node, source: str, why: str) -> UserError:
    return UserError(
        f"{source}: node {node.name} is {node.op_type} and {why}, so --dequantize cannot turn it into float; use the "
        "file from before the quantization"
    )


def _array(node: ir.Node, place: int, source: str) -> np.ndarray:
    array = constant(node.inputs[place])
    if array is None:
        raise _refused(node, source, "has scales that the graph computes")
    return array


def _zero(node: ir.Node, place: int, source: str) -> np.ndarray:
    if len(node.inputs) <= place or node.inputs[place] is None:
        return np.zeros((), np.uint8)
    return _array(node, place, source)
