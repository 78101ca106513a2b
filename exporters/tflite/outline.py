"""The graph of a TFLite file as ``edgekron.graph.joins`` and ``edgekron.graph.parts`` read it.

Operators that move values, and those that act on each value alone, stand as their ONNX counterparts; every other
operator stands for itself, in a domain of its own. The outline shows where values come from; it is not to be run.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from .read import Contents

_DOMAIN = "tflite"
_SAME = {
    "ADD": "Add", "DEQUANTIZE": "Identity", "DIV": "Div", "EXP": "Exp", "EXPAND_DIMS": "Reshape", "LOGISTIC": "Sigmoid",
    "MAXIMUM": "Max", "MINIMUM": "Min", "MUL": "Mul", "POW": "Pow", "QUANTIZE": "Identity", "RESHAPE": "Reshape",
    "SOFTMAX": "Softmax", "SQRT": "Sqrt", "SQUEEZE": "Reshape", "SUB": "Sub", "TANH": "Tanh",
}  # fmt: skip

#: ONNX operator, inputs and attributes of a node.
_Node = tuple[str, list[ir.Value], list[ir.Attr]]


def outline(contents: Contents, *, channels_first: bool = False) -> ir.Graph:
    """The only subgraph of a file; with ``channels_first`` an output of four axes is the output as NCHW."""
    graph = contents.graph
    values = [_value(contents, tensor) for tensor in graph.tensors]
    nodes = [
        _node(name, [values[i] for i in operator.inputs if i >= 0], operator, [values[i] for i in operator.outputs])
        for name, operator in zip(contents.operators, graph.operators, strict=True)
    ]
    outputs = [values[i] for i in graph.outputs]
    if channels_first:
        for place, value in enumerate(outputs):
            if value.shape is not None and len(value.shape) == 4:
                nodes.append(ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", [0, 3, 1, 2])]))
                outputs[place] = nodes[-1].outputs[0]
                outputs[place].name, outputs[place].dtype = value.name, value.dtype
    return ir.Graph([values[i] for i in graph.inputs], outputs, nodes=nodes)


def _value(contents: Contents, tensor: schema.TensorT) -> ir.Value:
    """A tensor of the file; with its values if it is a constant of integers, such as axes and sizes."""
    shape = tuple(int(n) for n in ([] if tensor.shape is None else tensor.shape))
    buffer = contents.model.buffers[tensor.buffer].data
    value = ir.Value(name=tensor.name.decode(), shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    if buffer is not None and len(buffer):
        integers = tensor.type == schema.TensorType.INT32
        # What a weight holds does not matter here, only that it is constant.
        array = np.frombuffer(buffer, np.int32).reshape(shape) if integers else np.zeros(0, np.float32)
        value.const_value = ir.tensor(array)
    return value


def _node(name: str, inputs: list[ir.Value], operator: schema.OperatorT, outputs: list[ir.Value]) -> ir.Node:
    made = _move(name, inputs, operator)
    if made is None and name in _SAME:
        made = _SAME[name], inputs[:1] if _SAME[name] in ("Identity", "Reshape") else inputs, []
    if made is None:
        return ir.Node(_DOMAIN, name, inputs, outputs=outputs)
    op_type, given, attributes = made
    return ir.Node("", op_type, given, attributes, outputs=outputs)


def _move(name: str, inputs: list[ir.Value], operator: schema.OperatorT) -> _Node | None:
    """A move with arguments; None for another operator."""
    options = operator.builtinOptions
    if name == "CONCATENATION":
        return "Concat", inputs, [ir.AttrInt64("axis", int(options.axis))]
    if name == "SPLIT" and (axis := _numbers(inputs[0])):
        return "Split", inputs[1:2], [ir.AttrInt64("axis", axis[0])]
    if name == "SPLIT_V" and (axis := _numbers(inputs[2])):
        return "Split", inputs[:1], [ir.AttrInt64("axis", axis[0])]
    if name == "TRANSPOSE" and (order := _numbers(inputs[1])):
        return "Transpose", inputs[:1], [ir.AttrInt64s("perm", order)]
    if name == "GATHER" and not options.batchDims and _numbers(inputs[1]):
        return "Gather", inputs, [ir.AttrInt64("axis", int(options.axis))]
    if name == "SLICE" and (begin := _numbers(inputs[1])) and (count := _numbers(inputs[2])):
        ends = [2**31 if n < 0 else b + n for b, n in zip(begin, count, strict=True)]
        return "Slice", [inputs[0], *map(_constant, (begin, ends))], []
    if name == "STRIDED_SLICE":
        return _strided(inputs, options)
    return None


def _strided(inputs: list[ir.Value], options: schema.StridedSliceOptionsT) -> _Node | None:
    """A bit of a mask stands for the first or last value along an axis in place of a number."""
    begin, end, step = (_numbers(value) for value in inputs[1:4])
    if not (begin and end and step) or options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
        return None
    far, axes = 2**31, list(range(len(step)))
    first = [0 if by > 0 else far for by in step]
    starts = [first[i] if options.beginMask >> i & 1 else begin[i] for i in axes]
    last = [far if by > 0 else -far for by in step]
    ends = [last[i] if options.endMask >> i & 1 else end[i] for i in axes]
    return "Slice", [inputs[0], *map(_constant, (starts, ends, axes, step))], []


def _numbers(value: ir.Value) -> list[int]:
    """The integers of a constant; none for a computed value."""
    return [] if value.const_value is None else [int(n) for n in value.const_value.numpy().ravel()]


def _constant(numbers: list[int]) -> ir.Value:
    return ir.Value(name="", const_value=ir.tensor(np.array(numbers, np.int64)))
