"""A part of a hub as a model of its own: the nodes that lie between given values.

``extract`` is called for one layer after the other, so it walks only the nodes of the part and copies only their
initializers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from edgekron.errors import UserError

from .control_flow import reads

if TYPE_CHECKING:
    from collections.abc import Sequence


def extract(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The nodes needed for the values ``outputs`` from the values ``inputs``; see ``Hub.submodel``."""
    values = {value.name: value for value in model.graph.inputs}
    values |= {value.name: value for node in model.graph for value in node.outputs}
    if unknown := [name for name in (*inputs, *outputs) if name not in values]:
        raise UserError(f"the graph has no value named {', '.join(unknown)}")
    if both := set(inputs) & set(outputs):
        raise UserError(f"{', '.join(sorted(both))} cannot be both input and output of a part of the graph")
    nodes, initializers = _needed(values, set(inputs), outputs)
    order = [node for node in model.graph if node in nodes]
    graph = onnx.GraphProto(name="part")
    graph.node.extend(ir.serde.serialize_node(node) for node in order)
    for name, value in initializers.items():
        if value.const_value is not None:
            # A tensor that was the attribute of a Constant has another name than its value, or none.
            graph.initializer.append(ir.serde.serialize_tensor(value.const_value))
            graph.initializer[-1].name = name
    graph.input.extend(ir.serde.serialize_value(values[name]) for name in inputs)
    graph.output.extend(ir.serde.serialize_value(values[name]) for name in outputs)
    proto = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    proto.opset_import.extend(
        onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()
    )
    used = {node.op_identifier() for node in order}
    proto.functions.extend(
        ir.serde.serialize_function(function) for key, function in model.functions.items() if key in used
    )
    return proto


def _needed(
    values: dict[str | None, ir.Value], stop: set[str], outputs: Sequence[str]
) -> tuple[set[ir.Node], dict[str, ir.Value]]:
    nodes: set[ir.Node] = set()
    initializers: dict[str, ir.Value] = {}
    pending = [values[name] for name in outputs]
    while pending:
        value = pending.pop()
        if value.name in stop:
            continue
        if value.is_initializer():
            initializers[str(value.name)] = value
            continue
        node = value.producer()
        if node is None:
            raise UserError(
                f"{', '.join(outputs)} also needs the value {value.name}, which is not among the inputs "
                f"{', '.join(sorted(stop))}"
            )
        if node not in nodes:
            nodes.add(node)
            pending.extend(reads(node))
    return nodes, initializers
