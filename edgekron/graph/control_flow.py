"""The values that a node reads; one with graphs inside (If, Loop, Scan) also reads what its inner nodes use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator


def reads(node: ir.Node) -> list[ir.Value]:
    """Every value that a node, or a graph inside the node, uses from the graphs around; none twice."""
    values = [value for value in node.inputs if value is not None]
    for graph in _inner(node):
        made = {*graph.inputs, *graph.initializers.values()}
        for part in ir.traversal.RecursiveGraphIterator(graph):
            made |= set(part.outputs)
            for deeper in _inner(part):
                made |= {*deeper.inputs, *deeper.initializers.values()}
            values += [value for value in part.inputs if value is not None and value not in made]
        values += [value for value in graph.outputs if value not in made]
    return list(dict.fromkeys(values))


def _inner(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
