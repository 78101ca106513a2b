"""Removes Expands that only spell out a broadcast: Add(Expand(a), b) is Add(a, b) if b alone makes the result as large.

ONNX's elementwise operators broadcast by themselves, so an Expand in front of one is needed only if no other operand
has the sizes of the expanded value.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekron.graph.nodes import remove_node

_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Min", "Max", "Sum", "Mean"}


def drop_expand(model: ir.Model) -> None:
    """Removes every Expand that no user needs. Needs inferred shapes."""
    for node in list(model.graph):
        if node.op_type != "Expand" or node.domain or node.outputs[0].is_graph_output():
            continue
        x, y = node.inputs[0], node.outputs[0]
        if x is None or not y.uses() or not all(_spares(user, y, x) for user, _ in y.uses()):
            continue
        ir.convenience.replace_all_uses_with(y, x)
        remove_node(node)


def _spares(user: ir.Node, expanded: ir.Value, x: ir.Value) -> bool:
    """Whether ``user`` gives the same with ``x`` in place of ``expanded``."""
    result = _dims(user.outputs[0])
    if user.op_type not in _BROADCASTING or user.domain or result is None:
        return False
    if user.op_type == "PRelu" and user.inputs[0] is expanded:
        return False
    shapes = [_dims(x if value is expanded else value) for value in user.inputs]
    known = [shape for shape in shapes if shape is not None]
    return len(known) == len(shapes) and _broadcast(known, len(result)) == result


def _broadcast(shapes: list[list[object]], rank: int) -> list[object] | None:
    """The shape that ``shapes`` broadcast to, open sizes compared by name; None for shapes that do not broadcast."""
    result: list[object] = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return result


def _dims(value: ir.Value | None) -> list[object] | None:
    """The sizes of a value, numbers or names; None if a size is neither."""
    if value is None or value.shape is None:
        return None
    dims: list[object] = [d if isinstance(d, int) else d.value for d in value.shape]
    return None if None in dims else dims
