"""Turns one-dimensional convolutions and pools into two-dimensional ones on images of a single row.

    Conv(x, W)  =  Squeeze(Conv(Unsqueeze(x), W'))      x [N, C, L] -> [N, C, 1, L]      W [F, C, k] -> W' [F, C, 1, k]

with stride, dilation and padding along the width. Then a sequence is an image like any other, and its layers are
factorized and exported by the same code. Elementwise operators between such layers work on the image too, so that a
chain of layers has one Unsqueeze in front and one Squeeze behind.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.graph.nodes import add_initializer, replace_node
from edgekron.graph.values import constant, required

_WEIGHTED = {"Conv", "ConvTranspose"}
_POOLS = {"MaxPool", "AveragePool", "LpPool"}
_GLOBAL_POOLS = {"GlobalAveragePool", "GlobalMaxPool"}
#: Operators that compute each value from the values in the same place alone, or in a place that is broadcast to it.
_ELEMENTWISE = {
    "Abs", "Add", "BatchNormalization", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid",
    "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid",
    "Softplus", "Softsign", "Sqrt", "Sub", "Tanh",
}  # fmt: skip
#: The entry of the row's own axis, in front of the attribute's entry for the sequence.
_FRONT = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_padding": 0}


def rows_as_images(model: ir.Model) -> None:
    """Rewrites every 1-D Conv and ConvTranspose with constant weights, every 1-D pool, and what lies between them.

    Needs inferred shapes. Squeezes that nothing uses any more are left behind.
    """
    graph = model.graph
    weights = _weights(graph)
    if not weights and not any(_is_pool(node) for node in graph):
        return
    axes = add_initializer(graph, "row_axis", np.array([2], dtype=np.int64))
    for value, weight in weights.items():
        array = np.ascontiguousarray(weight[:, :, None])
        value.const_value = ir.tensor(array, name=value.name)
        value.shape = ir.Shape(array.shape)
    images: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if (node.op_type in _WEIGHTED and node.inputs[1] in weights) or _is_pool(node):
            x = required(node, 0)
            if x not in images:
                images[x] = _unsqueeze(graph, node, x, axes)
            inputs = [images[x], *node.inputs[1:]]
        elif _elementwise(node, images):
            inputs = [images[v] if v in images else _broadcast(graph, v) for v in node.inputs]
        else:
            continue
        attributes = [_widened(attribute) for attribute in node.attributes.values()]
        image = ir.Node("", node.op_type, inputs, attributes, name=node.name)
        image.outputs[0].name = f"{node.outputs[0].name}.row"
        squeeze = ir.Node("", "Squeeze", [image.outputs[0], axes], name=f"{node.name}.squeeze")
        replace_node(node, [image, squeeze])
        images[squeeze.outputs[0]] = image.outputs[0]


def _weights(graph: ir.Graph) -> dict[ir.Value, np.ndarray]:
    """The constant weights [., ., k] that are weights of 1-D convolutions and nothing else."""
    found = {}
    for value in graph.initializers.values():
        alone = all(_is_weighted(user) and index == 1 for user, index in value.uses())
        array = constant(value) if alone and value.uses() and not value.is_graph_output() else None
        if array is not None and array.ndim == 3:
            found[value] = array
    return found


def _is_weighted(node: ir.Node) -> bool:
    return node.op_type in _WEIGHTED and not node.domain and "output_shape" not in node.attributes


def _is_pool(node: ir.Node) -> bool:
    x = node.inputs[0] if node.inputs else None
    if node.domain or x is None or len(node.outputs) != 1 or x.shape is None or len(x.shape) != 3:
        return False
    return node.op_type in _POOLS or node.op_type in _GLOBAL_POOLS


def _elementwise(node: ir.Node, images: dict[ir.Value, ir.Value]) -> bool:
    """Whether every input is an image already or a constant that can be broadcast against one."""
    known = any(v in images for v in node.inputs) and len(node.outputs) == 1
    if node.op_type not in _ELEMENTWISE or node.domain or not known:
        return False
    return all(
        v is None or v in images or (v.const_value is not None and len(v.const_value.shape) <= 3) for v in node.inputs
    )


def _broadcast(graph: ir.Graph, value: ir.Value | None) -> ir.Value | None:
    """A constant to be broadcast to an image: [C, L] and [N, C, L] get the row's axis, [L] and numbers need none."""
    array = constant(value)
    if value is None or array is None or array.ndim < 2:
        return value
    return add_initializer(graph, f"{value.name}.row", np.expand_dims(array, -2))


def _widened(attribute: ir.Attr) -> ir.Attr:
    if attribute.name == "pads":
        before, after = attribute.as_ints()
        return ir.AttrInt64s("pads", [0, before, 0, after])
    if attribute.name in _FRONT:
        return ir.AttrInt64s(attribute.name, [_FRONT[attribute.name], *attribute.as_ints()])
    return attribute


def _unsqueeze(graph: ir.Graph, node: ir.Node, x: ir.Value, axes: ir.Value) -> ir.Value:
    """The image of ``x``, made in front of ``node``."""
    unsqueeze = ir.Node("", "Unsqueeze", [x, axes], name=f"{x.name}.unsqueeze")
    unsqueeze.outputs[0].name = f"{x.name}.image"
    graph.insert_before(node, [unsqueeze])
    return unsqueeze.outputs[0]
