"""Gives every branch and body a node behind each of its outputs.

A branch such as else { y = Identity(x) } loses its Identity as a node that does nothing, and then hands on a value of
the graph around it, which ONNX Runtime refuses. Such an output gets its Identity back.
"""

from __future__ import annotations

import onnx_ir as ir


def own_outputs(model: ir.Model) -> None:
    """Puts an Identity behind every output of an inner graph that the graph does not make itself."""
    for graph in model.graphs():
        if graph is model.graph:
            continue
        for index, value in enumerate(graph.outputs):
            maker = value.producer()
            if (maker is not None and maker.graph is graph) or value in graph.initializers.values():
                continue
            copy = ir.Node("", "Identity", [value])
            copy.outputs[0].name, copy.outputs[0].type = f"{value.name}.{index}.own", value.type
            copy.outputs[0].shape = value.shape
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]
