"""Replaces pools with a window of one pixel by slices: such a pool of stride s takes every s-th pixel.

ONNX Runtime moves a Pad in front of a pool into the pool, and then refuses a padding that is wider than the window.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.graph.nodes import add_initializer, replace_node

_END = np.iinfo(np.int64).max


def pixels_from_pools(model: ir.Model) -> None:
    """Replaces every AveragePool and MaxPool without padding whose window has size one along every axis."""
    for node in list(model.graph):
        if node.op_type not in ("AveragePool", "MaxPool") or node.domain or len(node.outputs) != 1:
            continue
        window = node.attributes.get_ints("kernel_shape", ())
        unpadded = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        # Rounding up adds no window: one more would start behind the input, where none counts.
        if set(window) == {1} and unpadded and not any(node.attributes.get_ints("pads", ())):
            _slice(model.graph, node, list(node.attributes.get_ints("strides", [1] * len(window))))


def _slice(graph: ir.Graph, node: ir.Node, strides: list[int]) -> None:
    rank, name = len(strides), str(node.outputs[0].name)
    entries = {
        "starts": [0] * rank,
        "ends": [_END] * rank,
        "axes": list(range(2, 2 + rank)),
        "steps": strides,
    }
    inputs = [add_initializer(graph, f"{name}.{what}", np.array(v, dtype=np.int64)) for what, v in entries.items()]
    replace_node(node, [ir.Node("", "Slice", [node.inputs[0], *inputs], name=node.name)])
