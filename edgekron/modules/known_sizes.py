"""Folds the sizes that a graph computes and that are the same for every batch.

Exporters write shapes as Shape, Gather, Concat and arithmetic. A value that depends on shapes alone is evaluated for
two batches. Where both agree, the value is a constant. A Reshape whose target differs in one entry infers that entry,
and a Resize reads no batch. So a part of the graph can run without the values before the part of which it needs the
sizes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgekron.graph.axes import open_sizes
from edgekron.graph.nodes import add_initializer
from edgekron.graph.passes import fold_constants, infer_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCHES = (2, 3)
_SOURCES = ("Shape", "Size")


def with_known_sizes(model: ir.Model) -> ir.Model:
    """A copy of ``model`` in which known sizes are constants, without the nodes that computed them.

    ``model`` itself where nothing computes with sizes, or where the file left height and width open.
    """
    if open_sizes(model) or not any(node.op_type in _SOURCES for node in model.graph):
        return model
    result = model.clone()
    places = list(_read_sizes(result))
    first, second = (_values(model, {name for _, _, name in places}, batch) for batch in _BATCHES)
    for node, index, name in places:
        known = _known(node, index, first.get(name), second.get(name))
        if known is not None:
            node.replace_input_with(index, add_initializer(result.graph, f"{name}.known", known))
    common.RemoveUnusedNodesPass()(result)
    return result


def _read_sizes(model: ir.Model) -> Iterator[tuple[ir.Node, int, str]]:
    """(node, input, value) where a node that does more than to compute with sizes reads a value made of sizes alone."""
    sizes: set[ir.Value] = set()
    for node in model.graph:
        given = [value for value in node.inputs if value is not None and value.const_value is None]
        if node.op_type in _SOURCES or sizes.issuperset(given):
            sizes.update(node.outputs)
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value in sizes:
                yield node, index, str(value.name)


def _values(model: ir.Model, names: set[str], batch: int) -> dict[str, np.ndarray]:
    """The values that are constant for inputs of this batch, by name."""
    probe = model.clone()
    for value in probe.graph.inputs:
        value.shape = ir.Shape([batch, *list(value.shape or ())[1:]])
    wanted = [value for node in probe.graph for value in node.outputs if value.name in names]
    count = len(probe.graph.outputs)
    probe.graph.outputs.extend(value for value in wanted if value not in probe.graph.outputs)
    infer_shapes(probe)
    fold_constants(probe)
    tensors = {str(value.name): ir.convenience.get_const_tensor(value) for value in probe.graph.outputs[count:]}
    return {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}


def _known(node: ir.Node, index: int, first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """The constant for a node's input that has two values for two batches; None where it must be computed."""
    if first is None or second is None or first.shape != second.shape:
        return None
    differs = first != second
    if not differs.any():
        return first
    if node.op_type == "Reshape" and index == 1 and differs.sum() == 1 and -1 not in first:
        return np.where(differs, -1, first)
    if node.op_type == "Resize" and index == 3 and not differs[1:].any():
        return first
    return None
