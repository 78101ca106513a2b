"""Activation memory of a graph run in its own order: all values that are alive at once, nothing reused in place."""

from __future__ import annotations

import math

import onnx_ir as ir

from .control_flow import reads
from .hub import Hub


def peak_activations(hub: Hub) -> tuple[int, str]:
    """(bytes, node): the largest sum of live float32 activations for one image, and the node that reaches this sum.

    A value lives from the node that makes it to the last node that reads it. Values of unknown shape count as nothing.
    """
    graph = hub.model.graph
    nodes = list(graph)
    last = {value: len(nodes) for value in graph.outputs}
    for index, node in enumerate(nodes):
        for value in reads(node):
            if not value.is_initializer():
                last[value] = max(last.get(value, 0), index)
    alive = list(graph.inputs)
    peak, where = 0, ""
    for index, node in enumerate(nodes):
        alive += list(node.outputs)
        total = sum(_bytes(value) for value in alive)
        if total > peak:
            peak, where = total, str(node.name or node.op_type)
        alive = [value for value in alive if last.get(value, -1) > index]
    return peak, where


def _bytes(value: ir.Value) -> int:
    if value.shape is None:
        return 0
    return 4 * math.prod(d for d in list(value.shape)[1:] if isinstance(d, int))
