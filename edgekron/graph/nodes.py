"""Nodes of a layer in the hub: ordinary ones, and factorized ones, whose meaning is a function in the same model.

The function of a factorized layer multiplies the factors out and applies the dense operator:

    kernel = Reshape(Einsum(factor0, factor1, ...), [F, C / groups, kh, kw])      y = Conv(x, kernel, bias)

with Gemm in place of Conv for a fully connected layer. The factors of a transposed convolution make the kernel of the
equivalent ordinary one; the weight is that kernel with its channels swapped and its window backwards. A file with such
functions is an ordinary ONNX model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from .factorized import DOMAIN, METADATA_KEY, Factorized, is_factorized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.algebra import Geometry, Pair

OPSET = 20
#: The oldest format in which a node has metadata.
IR_VERSION = 10


def conv_attributes(geometry: Geometry, groups: int, window: Sequence[int]) -> dict[str, ir.Attr]:
    """The attributes of a Conv node with explicit pads."""
    (top, bottom), (left, right) = geometry.padding
    return {
        "kernel_shape": ir.AttrInt64s("kernel_shape", list(window)),
        "strides": ir.AttrInt64s("strides", list(geometry.stride)),
        "dilations": ir.AttrInt64s("dilations", list(geometry.dilation)),
        "pads": ir.AttrInt64s("pads", [top, left, bottom, right]),
        "group": ir.AttrInt64("group", groups),
    }


def conv_transpose_attributes(geometry: Geometry, groups: int, window: Pair) -> dict[str, ir.Attr]:
    """The attributes of a ConvTranspose node; ``geometry`` is that of the equivalent ordinary convolution."""
    (top, bottom), (left, right) = geometry.crop(window)
    return {
        "kernel_shape": ir.AttrInt64s("kernel_shape", list(window)),
        "strides": ir.AttrInt64s("strides", list(geometry.upsample)),
        "dilations": ir.AttrInt64s("dilations", list(geometry.dilation)),
        "pads": ir.AttrInt64s("pads", [top, left, max(bottom, 0), max(right, 0)]),
        "output_padding": ir.AttrInt64s("output_padding", [max(-bottom, 0), max(-right, 0)]),
        "group": ir.AttrInt64("group", groups),
    }


def adjoint_kernel(weight: np.ndarray, groups: int) -> np.ndarray:
    """The kernel [F, C / groups, kh, kw] of the ordinary convolution that is equivalent to a transposed one.

    ``weight`` is that of the transposed convolution, [C, F / groups, kh, kw]. The function is its own inverse.
    """
    inputs, outputs, h, w = weight.shape
    swapped = weight.reshape(groups, inputs // groups, outputs, h, w).swapaxes(1, 2)
    return np.ascontiguousarray(swapped.reshape(groups * outputs, inputs // groups, h, w)[:, :, ::-1, ::-1])


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer; where another value is called ``name``, a number is appended."""
    taken = {value.name for node in graph for value in node.outputs} | {v.name for v in graph.inputs}
    unique, count = name, 1
    while unique in graph.initializers or unique in taken:
        count += 1
        unique = f"{name}_{count}"
    # Not ascontiguousarray, which makes a vector of a scalar.
    contiguous = np.asarray(array, order="C")
    value = ir.Value(
        name=unique,
        type=ir.TensorType(ir.DataType.from_numpy(contiguous.dtype)),
        shape=ir.Shape(contiguous.shape),
        const_value=ir.tensor(contiguous, name=unique),
    )
    graph.register_initializer(value)
    return value


def replace_node(old: ir.Node, new: Sequence[ir.Node]) -> None:
    """Puts the nodes ``new`` in the place of ``old``; the last one's output takes over its name, shape and users.

    Initializers that only ``old`` used are removed.
    """
    graph = _graph(old)
    before, after = old.outputs[0], new[-1].outputs[0]
    after.name, after.shape, after.type = before.name, before.shape, before.type
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    remove_node(old)


def remove_node(node: ir.Node) -> None:
    """Removes a node that nothing uses, with the initializers that only it used."""
    graph = _graph(node)
    inputs = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in inputs:
        if value.is_initializer() and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "", None)


def replace_by_dense(node: ir.Node, factorized: Factorized, kernel: np.ndarray | None = None) -> None:
    """Puts an ordinary Conv or Gemm in the place of a factorized node: of ``kernel``, or of the expanded factors."""
    graph, x, name = _graph(node), node.inputs[0], node.name
    kernel = factorized.kernel() if kernel is None else kernel
    if factorized.kind == "linear":
        kernel = kernel.reshape(kernel.shape[:2])
    elif factorized.geometry.transposed:
        kernel = adjoint_kernel(kernel, factorized.network.total("g"))
    release_parameters(node)
    inputs = [x, add_initializer(graph, f"{factorized.layer}.weight", kernel)]
    if factorized.bias is not None:
        inputs.append(add_initializer(graph, f"{factorized.layer}.bias", factorized.bias))
    if factorized.kind == "linear":
        dense = ir.Node("", "Gemm", inputs, [ir.AttrInt64("transB", 1)], name=name)
    else:
        dense = ir.Node("", *_operator(factorized, inputs), name=name)
    replace_node(node, [dense])


def replace_by_factorized(model: ir.Model, node: ir.Node, factorized: Factorized) -> None:
    """Puts a factorized node, and its function, in the place of a layer's node."""
    graph, x = model.graph, node.inputs[0]
    layer = factorized.layer
    tensors = [(f"{layer}.factor{i}", tensor) for i, tensor in enumerate(factorized.tensors)]
    if factorized.bias is not None:
        tensors.append((f"{layer}.bias", factorized.bias))
    release_parameters(node)
    if is_factorized(node):
        model.functions.pop(node.op_identifier(), None)
    inputs = [x, *(add_initializer(graph, name, np.asarray(t, dtype=np.float32)) for name, t in tensors)]
    function = _function(_function_name(model, layer), factorized)
    model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = 1
    new = ir.Node(DOMAIN, function.name, inputs, name=node.name, metadata_props={METADATA_KEY: factorized.metadata()})
    replace_node(node, [new])


def release_parameters(node: ir.Node) -> None:
    """Takes every input but the first from ``node``, so that new parameters can have the names of the old ones."""
    graph = _graph(node)
    for index in range(1, len(node.inputs)):
        value = node.inputs[index]
        node.replace_input_with(index, None)
        if value is not None and value.is_initializer() and not value.uses():
            graph.initializers.pop(value.name or "", None)


def _graph(node: ir.Node) -> ir.Graph:
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"node {node.name} is in no graph")
    return node.graph


def _function_name(model: ir.Model, layer: str) -> str:
    stem = re.sub(r"[^0-9A-Za-z_]", "_", layer)
    taken = {function.name for function in model.functions.values()}
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def _function(name: str, factorized: Factorized) -> ir.Function:
    network = factorized.network
    x = ir.Value(name="x")
    factors = [ir.Value(name=f"factor{i}") for i in range(len(factorized.tensors))]
    bias = [ir.Value(name="bias")] if factorized.bias is not None else []
    linear = factorized.kind == "linear"
    transposed = factorized.geometry.transposed
    f, c, h, w = network.kernel_shape
    groups = network.total("g")
    shape = [c * groups, f // groups, h, w] if transposed else [f, c] if linear else [f, c, h, w]
    equation = network.equation("gcfhw" if transposed else "gfchw")
    einsum = ir.Node("", "Einsum", factors, [ir.AttrString("equation", equation)], name="product")
    constant = ir.Node("", "Constant", [], [ir.AttrInt64s("value_ints", shape)], name="shape")
    kernel = ir.Node("", "Reshape", [einsum.outputs[0], constant.outputs[0]], name="kernel")
    nodes = [einsum, constant, kernel]
    if transposed:
        nodes += _backwards(kernel.outputs[0])
    inputs = [x, nodes[-1].outputs[0], *bias]
    if linear:
        result = ir.Node("", "Gemm", inputs, [ir.AttrInt64("transB", 1)], name="gemm")
    else:
        result = ir.Node("", *_operator(factorized, inputs), name="conv")
    nodes.append(result)
    for node in nodes[:-1]:
        node.outputs[0].name = node.name
    result.outputs[0].name = "y"
    graph = ir.Graph([x, *factors, *bias], result.outputs, nodes=nodes, opset_imports={"": OPSET}, name=name)
    return ir.Function(DOMAIN, name, graph=graph, attributes=[])


def _operator(
    factorized: Factorized, inputs: Sequence[ir.Value | None]
) -> tuple[str, Sequence[ir.Value | None], list[ir.Attr]]:
    """Operator, inputs and attributes of the dense layer of a factorized convolution."""
    geometry, groups = factorized.geometry, factorized.network.total("g")
    _, _, h, w = factorized.network.kernel_shape
    if geometry.transposed:
        return "ConvTranspose", inputs, list(conv_transpose_attributes(geometry, groups, (h, w)).values())
    return "Conv", inputs, list(conv_attributes(geometry, groups, (h, w)).values())


def _backwards(kernel: ir.Value) -> list[ir.Node]:
    """The nodes that reverse the window of a kernel."""
    ends = {"first": [-1, -1], "behind": [-(2**31), -(2**31)], "window": [2, 3], "backwards": [-1, -1]}
    constants = [ir.Node("", "Constant", [], [ir.AttrInt64s("value_ints", v)], name=name) for name, v in ends.items()]
    return [*constants, ir.Node("", "Slice", [kernel, *(node.outputs[0] for node in constants)], name="reversed")]
