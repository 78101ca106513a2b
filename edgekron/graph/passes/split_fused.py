"""Writes the operators that ONNX Runtime's optimizer leaves in a saved file as the standard ones that they stand for.

    FusedConv(x, w, b, z)       act(Conv(x, w, b) + z)
    FusedGemm(a, b, c)          act(Gemm(a, b, c))
    FusedMatMul(a, b)           alpha * a' b', with the last two axes of each swapped where it says so
    BiasGelu(x, b)              Gelu(x + b)
    Gelu, QuickGelu, FastGelu   as ONNX defines them, or by their formulas

All are of the domain ``com.microsoft``. Nodes of its other domain for blocked layouts (``com.microsoft.nchwc``) hold
weights in an order of their own, and are refused. Other nodes of these domains stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.nodes import replace_node

from .infer_shapes import infer_shapes

DOMAIN, BLOCKED = "com.microsoft", "com.microsoft.nchwc"

#: For each activation of a fused node, the standard attributes that its parameters are, in their order.
_ACTIVATIONS = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}


def split_fused(model: ir.Model, source: str) -> None:
    """Replaces every node that has a rule, in a model of opset 20 and float32.

    Raises ``UserError`` that names ``source`` for nodes of a blocked layout.
    """
    for node in model.graph:
        if node.domain == BLOCKED:
            raise UserError(
                f"{source}: node {node.name} ({node.op_type}) holds its weights in a layout of ONNX Runtime for one "
                "machine; save the model with graph_optimization_level ORT_ENABLE_EXTENDED, or use the file before that"
            )
    while fused := [n for n in model.graph if n.domain == DOMAIN and n.op_type in _RULES]:
        # A rule may need the shape of what another one has yet to make.
        infer_shapes(model)
        made = [(node, nodes) for node in fused if (nodes := _RULES[node.op_type](node)) is not None]
        for node, nodes in made:
            replace_node(node, nodes)
        if not made:
            return


def _attributes(node: ir.Node, names: tuple[str, ...]) -> list[ir.Attr]:
    return [node.attributes[name] for name in names if name in node.attributes]


def _activated(node: ir.Node, nodes: list[ir.Node], parameters: list[float]) -> list[ir.Node] | None:
    """The nodes with the activation of the fused ``node`` behind them; None for one that is unknown."""
    kind = node.attributes.get_string("activation", "")
    if not kind:
        return nodes
    if kind not in _ACTIVATIONS or len(parameters) < len(_ACTIVATIONS[kind]):
        return None
    inputs = [nodes[-1].outputs[0]]
    if kind == "Clip":
        limits = [
            _constant(f"{node.outputs[0].name}_{end}", value) for end, value in zip("ab", parameters, strict=False)
        ]
        nodes += limits
        inputs += [limit.outputs[0] for limit in limits]
        attributes = []
    else:
        attributes = [ir.AttrFloat32(name, value) for name, value in zip(_ACTIVATIONS[kind], parameters, strict=False)]
    return [*nodes, ir.Node("", kind, inputs, attributes)]


def _constant(name: str, value: float) -> ir.Node:
    tensor = ir.tensor(np.float32(value), name=name)
    return ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=name)


def _conv(node: ir.Node) -> list[ir.Node] | None:
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    nodes = [ir.Node("", "Conv", node.inputs[:3], _attributes(node, names), name=node.name)]
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        nodes.append(ir.Node("", "Add", [nodes[0].outputs[0], node.inputs[3]]))
    given = node.attributes.get("activation_params")
    return _activated(node, nodes, [] if given is None else [float(x) for x in given.as_floats()])


def _gemm(node: ir.Node) -> list[ir.Node] | None:
    nodes = [ir.Node("", "Gemm", node.inputs, _attributes(node, ("alpha", "beta", "transA", "transB")), name=node.name)]
    names = ("activation_alpha", "activation_beta")
    return _activated(node, nodes, [node.attributes[n].as_float() for n in names if n in node.attributes])


def _matmul(node: ir.Node) -> list[ir.Node] | None:
    if node.attributes.get_int("transBatchA", 0) or node.attributes.get_int("transBatchB", 0):
        return None
    nodes: list[ir.Node] = []
    sides: list[ir.Value | None] = []
    for value, flag in zip(node.inputs, ("transA", "transB"), strict=True):
        if node.attributes.get_int(flag, 0):
            if value is None or value.shape is None:
                return None
            axes = [*range(len(value.shape) - 2), len(value.shape) - 1, len(value.shape) - 2]
            nodes.append(ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", axes)]))
            sides.append(nodes[-1].outputs[0])
        else:
            sides.append(value)
    nodes.append(ir.Node("", "MatMul", sides, name=node.name))
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha != 1.0:
        scale = _constant(f"{node.outputs[0].name}_alpha", alpha)
        nodes += [scale, ir.Node("", "Mul", [nodes[-1].outputs[0], scale.outputs[0]])]
    return nodes


def _gelu(node: ir.Node) -> list[ir.Node]:
    nodes, x = [], node.inputs[0]
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        nodes.append(ir.Node("", "Add", node.inputs[:2]))
        x = nodes[0].outputs[0]
    form = "tanh" if node.op_type == "FastGelu" else "none"
    return [*nodes, ir.Node("", "Gelu", [x], [ir.AttrString("approximate", form)], name=node.name)]


def _quick_gelu(node: ir.Node) -> list[ir.Node]:
    """X * sigmoid(alpha x)."""
    scale = _constant(f"{node.outputs[0].name}_alpha", node.attributes.get_float("alpha", 1.702))
    scaled = ir.Node("", "Mul", [node.inputs[0], scale.outputs[0]])
    gate = ir.Node("", "Sigmoid", [scaled.outputs[0]])
    return [scale, scaled, gate, ir.Node("", "Mul", [node.inputs[0], gate.outputs[0]], name=node.name)]


_RULES: dict[str, Callable[[ir.Node], list[ir.Node] | None]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "BiasGelu": _gelu,
    "FastGelu": _gelu,
    "Gelu": _gelu,
    "QuickGelu": _quick_gelu,
}
