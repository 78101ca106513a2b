"""Turns three-dimensional convolutions and pools that look along one axis into two-dimensional ones.

Two neighbouring axes along which the window has size one, the stride is one and nothing is padded can be one axis:

    Conv(x, W)  =  Reshape(Conv(Reshape(x), W'))     x [N, C, D, H, W] -> [N, C, D, H W],   W' [F, C, kd, 1]

Networks use such layers to convolve, or to normalise, along their channels seen as an axis. Afterwards the layer is
factorized and exported like any other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.graph.nodes import add_initializer, replace_node
from edgekron.graph.values import constant, sizes_behind_batch

_TYPES = {"Conv", "MaxPool", "AveragePool"}
#: Attributes with one entry for each axis, and ``pads`` with two.
_PER_AXIS = ("kernel_shape", "strides", "dilations", "pads")


def volumes_as_images(model: ir.Model) -> None:
    """Rewrites every such 3-D Conv with constant weights and every such pool. Needs inferred shapes."""
    for node in list(model.graph):
        if node.op_type in _TYPES and not node.domain and len(node.outputs) == 1:
            _rewrite(model.graph, node)


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    x, y, window = node.inputs[0], node.outputs[0], _window(node)
    source, target = _volume(x), _volume(y)
    if x is None or window is None or source is None or target is None:
        return
    trivial = [_trivial(node, window, axis) for axis in range(3)]
    joined = next((axis for axis in (1, 0) if trivial[axis] and trivial[axis + 1]), None)
    if joined is None or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return
    attributes = [_without(attribute, joined) for attribute in node.attributes.values()]
    flat = _reshape(graph, x, _join(source, joined), f"{node.name}.flat")
    inputs = [flat.outputs[0], *node.inputs[1:]]
    weight = node.inputs[1] if node.op_type == "Conv" else None
    array = constant(weight)
    if weight is not None and array is not None:
        inputs[1] = _flat_weight(graph, weight, np.ascontiguousarray(array.squeeze(2 + joined)))
    image = ir.Node("", node.op_type, inputs, attributes, name=node.name)
    image.outputs[0].name = f"{y.name}.image"
    volume = _reshape(graph, image.outputs[0], target, f"{node.name}.volume")
    replace_node(node, [flat, image, volume])


def _flat_weight(graph: ir.Graph, weight: ir.Value, array: np.ndarray) -> ir.Value:
    """``array`` as a weight: under the name of ``weight`` where nothing else uses that one."""
    name = str(weight.name)
    if len(weight.uses()) > 1 or weight.is_graph_output():
        return add_initializer(graph, name, array)
    weight.const_value = ir.tensor(array, name=name)
    weight.shape = ir.Shape(array.shape)
    return weight


def _window(node: ir.Node) -> list[int] | None:
    """The size of the window, None for a node of another rank or without constant weights."""
    if node.op_type != "Conv":
        window = list(node.attributes.get_ints("kernel_shape", ()))
        return window if len(window) == 3 else None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 5:
        return None
    return list(weight.const_value.shape.numpy()[2:])


def _volume(value: ir.Value | None) -> list[int] | None:
    """The sizes [D, H, W] and channels in front, [C, D, H, W]; None where one is not known."""
    sizes = sizes_behind_batch(value)
    return sizes if sizes is not None and len(sizes) == 4 else None


def _trivial(node: ir.Node, window: list[int], axis: int) -> bool:
    """Whether the window passes an axis pixel by pixel."""
    stride = node.attributes.get_ints("strides", (1, 1, 1))[axis]
    pads = node.attributes.get_ints("pads", (0,) * 6)
    return window[axis] == 1 and stride == 1 and pads[axis] == 0 == pads[axis + 3]


def _without(attribute: ir.Attr, axis: int) -> ir.Attr:
    """An attribute without its entries for one of three axes."""
    if attribute.name not in _PER_AXIS:
        return attribute
    return ir.AttrInt64s(attribute.name, [v for i, v in enumerate(attribute.as_ints()) if i % 3 != axis])


def _join(sizes: list[int], axis: int) -> list[int]:
    """[C, D, H, W] with spatial axes ``axis`` and ``axis + 1`` as one."""
    return [*sizes[: axis + 1], sizes[axis + 1] * sizes[axis + 2], *sizes[axis + 3 :]]


def _reshape(graph: ir.Graph, x: ir.Value, sizes: list[int], name: str) -> ir.Node:
    """A reshape to [N, *sizes]."""
    shape = add_initializer(graph, f"{name}.shape", np.array([0, *sizes], dtype=np.int64))
    node = ir.Node("", "Reshape", [x, shape], name=name)
    node.outputs[0].name = name
    return node
