"""Removes Dropout, which does nothing at inference."""

from __future__ import annotations

import onnx_ir as ir

from edgekron.graph.nodes import remove_node


def remove_dropout(model: ir.Model) -> None:
    """Removes every Dropout that is not in training mode and whose mask nothing uses."""
    for node in list(model.graph):
        if node.op_type != "Dropout" or node.domain:
            continue
        training = node.inputs[2] if len(node.inputs) > 2 else None
        if training is not None and (training.const_value is None or training.const_value.numpy().any()):
            continue
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            continue
        x, y = node.inputs[0], node.outputs[0]
        if x is None or (y.is_graph_output() and x.producer() is None):
            continue
        if y.is_graph_output():
            x.name, y.name = y.name, f"{y.name}.dropout"
        ir.convenience.replace_all_uses_with(y, x, replace_graph_outputs=True)
        remove_node(node)
