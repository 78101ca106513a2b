"""One rule for each operator: how channels pass from its inputs to its outputs; see ``channels``.

==================================  ====================================================================================
Conv, ConvTranspose, Gemm           reads the units of its input, makes new ones
depthwise Conv, ConvTranspose       each output has the unit of its one input
Add, Mul, PRelu, Where, ...         ties units in the same place; an operand with one channel is spread over all
activations, pools, spatial means   the same units
Concat, Split, Slice, Gather, Pad   on the channels: the units in their new places; padded channels are new units
Reshape, Flatten, Squeeze, ...      the units of the rows, where each row of the result comes from one channel
any other operator                  freezes the units of its inputs
==================================  ====================================================================================

A MatMul by a constant is a layer too. On [N, C] the hub turns it into a Gemm; on other values the channels are the last
axis, and frozen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .channels import Alive, Channels, constant
from .rearranging import RULES as REARRANGING

Rule = Callable[[Channels, ir.Node], None]

_SAME = frozenset({
    "Abs", "AveragePool", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "LpPool", "MaxPool", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign",
    "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
})  # fmt: skip
_BROADCAST = frozenset({
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where",
})  # fmt: skip
_REDUCTIONS = frozenset({
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
})  # fmt: skip
#: Operators along one axis, each with its default axis.
_ALONG = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "LpNormalization": -1}
_NORMS = {"BatchNormalization": 5, "InstanceNormalization": 3}


def trace(model: ir.Model) -> Channels:
    """The channels of a hub's graph."""
    channels = Channels(model)
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) > 1 and isinstance(value.shape[1], int):
            units = channels.new(value.shape[1])
            channels.give(value, units)
            channels.freeze(units, "makes the network's input")
    for node in model.graph:
        _rule(node)(channels, node)
    for value in model.graph.outputs:
        if (made := channels.of(value)) is not None:
            channels.freeze(made, "makes an output of the network")
    return channels


def _rule(node: ir.Node) -> Rule:
    if node.domain not in ("", "ai.onnx"):
        return _unknown
    name = node.op_type
    for known, rule in ((_SAME, _same), (_BROADCAST, _broadcast), (_REDUCTIONS, _reduce), (_ALONG, _along)):
        if name in known:
            return rule
    if name in _NORMS:
        return _norm
    return _LAYERS.get(name) or REARRANGING.get(name, _unknown)


def _unknown(channels: Channels, node: ir.Node) -> None:
    channels.refuse(node, "is read by an operator that mixes channels,")


def _same(channels: Channels, node: ir.Node) -> None:
    units = channels.of(node.inputs[0])
    if units is None or (len(node.outputs) > 1 and any(value.uses() for value in node.outputs[1:])):
        _unknown(channels, node)
        return
    channels.give(node.outputs[0], units)


def _broadcast(channels: Channels, node: ir.Node) -> None:
    output = node.outputs[0]
    rank = len(output.shape) if output.shape is not None else 0
    moving = [value for value in node.inputs if value is not None and constant(value) is None]
    found = [channels.of(value) for value in moving]
    known = [units for units in found if units is not None]
    width = max((len(units) for units in known), default=0)
    aligned = all(value.shape is not None and len(value.shape) == rank for value in moving)
    if rank < 2 or len(known) < len(found) or not aligned or any(len(units) not in (1, width) for units in known):
        channels.refuse(node, "is combined with something that is not an image of its channels,")
        return
    wide = [units for units in known if len(units) == width]
    sides = []
    for index, value in enumerate(node.inputs):
        array = constant(value)
        axis = 1 - rank + array.ndim if array is not None else -1
        if array is not None and axis >= 0 and array.shape[axis] != 1:
            sides.append((index, axis, array.shape[axis]))
    if any(size != width for _, _, size in sides):
        channels.refuse(node, "is spread over several channels")
        return
    for other in wide[1:]:
        channels.tie(wide[0], other)
    for index, axis, _ in sides:
        channels.note(node, index, axis, wide[0])
    channels.give(output, wide[0])


def _reduce(channels: Channels, node: ir.Node) -> None:
    value = node.inputs[0]
    units = channels.of(value)
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None and "axes" in node.attributes:
        axes = np.array(node.attributes.get_ints("axes"))
    if units is None or value is None or value.shape is None or axes is None or not axes.size:
        _unknown(channels, node)
        return
    if min(axis % len(value.shape) for axis in axes.tolist()) < 2:
        channels.refuse(node, "is summed with other channels or images")
        return
    channels.give(node.outputs[0], units)


def _along(channels: Channels, node: ir.Node) -> None:
    value = node.inputs[0]
    units = channels.of(value)
    axis = node.attributes.get_int("axis", _ALONG[node.op_type])
    if units is None or value is None or value.shape is None or axis % len(value.shape) < 2:
        _unknown(channels, node)
        return
    channels.give(node.outputs[0], units)


def _norm(channels: Channels, node: ir.Node) -> None:
    units = channels.of(node.inputs[0])
    last = _NORMS[node.op_type]
    if units is None or any(constant(value) is None for value in node.inputs[1:last]):
        _unknown(channels, node)
        return
    for index in range(1, last):
        channels.note(node, index, 0, units)
    channels.give(node.outputs[0], units)


def _weight(channels: Channels, node: ir.Node) -> np.ndarray | None:
    """The constant weight of a layer; a layer whose weight cannot be cut gives None, and its inputs are frozen."""
    value, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(value)
    if array is None or value is None or (bias is not None and constant(bias) is None):
        channels.refuse(node, "is read by a layer whose weights are not constant,")
        return None
    others = sorted({channels.name(user) for user, _ in value.uses() if user is not node})
    if others:
        channels.refuse(node, f"is read by a layer that shares its weights with {', '.join(others)},")
        return None
    return array


def _layer(
    channels: Channels, node: ir.Node, units: np.ndarray | None, outputs: int, inputs_axis: int, axis: int
) -> None:
    """Notes a layer whose outputs are new units, each computed from all inputs."""
    made = channels.new(outputs)
    name = channels.names[node]
    if units is not None:
        channels.note(node, 1, inputs_axis, units, makes=False)
    channels.note(node, 1, axis, made)
    _bias(channels, node, made)
    channels.layers[name] = (units, made)
    channels.makers[name] = made
    channels.give(node.outputs[0], made)


def _bias(channels: Channels, node: ir.Node, made: np.ndarray) -> None:
    array = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if array is not None and array.ndim and array.shape[-1] == len(made):
        channels.note(node, 2, array.ndim - 1, made)


def _convolution(channels: Channels, node: ir.Node) -> None:
    array, units = _weight(channels, node), channels.of(node.inputs[0])
    if array is None:
        return
    groups = node.attributes.get_int("group", 1)
    transposed = node.op_type == "ConvTranspose"
    inputs = array.shape[0] if transposed else array.shape[1] * groups
    outputs = array.shape[1] * groups if transposed else array.shape[0]
    if groups == 1:
        _layer(channels, node, units, outputs, 1 - transposed, int(transposed))
    elif groups == inputs and units is not None and not (transposed and outputs != inputs):
        made = np.repeat(units, outputs // inputs)
        channels.note(node, 1, 0, made)
        _bias(channels, node, made)
        channels.layers[channels.names[node]] = (None, made)
        channels.give(node.outputs[0], made)

        def regroup(alive: Alive) -> None:
            node.attributes["group"] = ir.AttrInt64("group", int(alive(units).sum()))

        channels.edits.append(regroup)
    else:
        channels.refuse(node, f"is read by a convolution in {groups} groups, which must stay equal,")
        channels.layers[channels.names[node]] = (None, None)


def _gemm(channels: Channels, node: ir.Node) -> None:
    array, units = _weight(channels, node), channels.of(node.inputs[0])
    scaled = node.attributes.get_float("alpha", 1.0) != 1.0 or node.attributes.get_float("beta", 1.0) != 1.0
    if array is None or scaled or node.attributes.get_int("transA", 0) != 0:
        _unknown(channels, node)
        return
    transposed = node.attributes.get_int("transB", 0) == 1
    outputs = array.shape[0] if transposed else array.shape[1]
    _layer(channels, node, units, outputs, int(transposed), int(not transposed))


_LAYERS: dict[str, Rule] = {"Conv": _convolution, "ConvTranspose": _convolution, "Gemm": _gemm}
