"""Turns reshapes to a shape that is computed from the batch into reshapes to a constant shape.

Older exporters write x.view(x.size(0), -1) as Shape, Gather, Unsqueeze, Concat and Reshape. All of it is a function of
the batch alone, so it is evaluated for two batches: where the shapes differ in their first entry only, and that is the
batch, the batch is the only thing that was computed.
"""

from __future__ import annotations

import onnx_ir as ir

from .fold_constants import fold_constants
from .infer_shapes import infer_shapes
from .keep_batch import set_shape

_PROBES = (2, 3)


def fold_batch_shapes(model: ir.Model) -> None:
    """Gives a constant shape to every reshape that keeps the batch first; others stay as they are."""
    computed = [n for n in model.graph if n.op_type == "Reshape" and not n.domain and not _is_constant(n.inputs[1])]
    if not computed:
        return
    first, second = (_targets(model, batch) for batch in _PROBES)
    for node in computed:
        name = node.outputs[0].name
        a, b = first.get(name, []), second.get(name, [])
        x = node.inputs[0]
        if not a or a[1:] != b[1:] or 0 in a or x is None or x.shape is None:
            continue
        if (a[0], b[0]) == _PROBES and x.shape[0] == model.graph.inputs[0].shape[0]:  # type: ignore[index]
            set_shape(model.graph, node, [0, *a[1:]])
        elif a[0] == b[0] == -1:
            set_shape(model.graph, node, a)


def _targets(model: ir.Model, batch: int) -> dict[str | None, list[int]]:
    """The target of every reshape whose shape is constant once the batch is, by the name of its output."""
    probe = model.clone()
    value = probe.graph.inputs[0]
    value.shape = ir.Shape([batch, *list(value.shape or ())[1:]])
    infer_shapes(probe)
    fold_constants(probe)
    return {
        node.outputs[0].name: [int(d) for d in node.inputs[1].const_value.numpy()]
        for node in probe.graph
        if node.op_type == "Reshape" and node.inputs[1] is not None and node.inputs[1].const_value is not None
    }


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None
