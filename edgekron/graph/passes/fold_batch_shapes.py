"""Turns reshapes to a shape that is computed from the batch into reshapes to a constant shape.

Older exporters write x.view(x.size(0), -1) as Shape, Gather, Unsqueeze, Concat and Reshape. The computed shape depends
on the batch alone, so it is evaluated for two batches: if the two shapes differ only in their first entry, and that
entry is the batch, the shape can be constant, with a first entry that means "as before".
"""

from __future__ import annotations

from dataclasses import dataclass

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
    first, second = (_Probe.of(model, batch) for batch in _PROBES)
    # Behind a reshape that changes nothing, and so is in neither probe, a batch is known once that one has its shape.
    while left := [node for node in computed if not _give_shape(model, node, first, second)]:
        if len(left) == len(computed):
            return
        computed = left
        infer_shapes(model)


def _give_shape(model: ir.Model, node: ir.Node, first: _Probe, second: _Probe) -> bool:
    """Gives one reshape its constant shape; False for a reshape without one, or whose input is not known yet."""
    name, x = str(node.outputs[0].name), node.inputs[0]
    a, b = first.targets.get(name, []), second.targets.get(name, [])
    if not a or a[1:] != b[1:] or 0 in a or x is None or x.shape is None:
        return False
    follows = (first.batches.get(str(x.name)), second.batches.get(str(x.name))) == _PROBES
    batch = list(model.graph.inputs[0].shape or ())[:1]
    if (a[0], b[0]) == _PROBES and (follows or list(x.shape)[:1] == batch):
        set_shape(model.graph, node, [0, *a[1:]])
        return True
    if a[0] == b[0] == -1:
        set_shape(model.graph, node, a)
        return True
    return False


@dataclass(frozen=True)
class _Probe:
    """All that is constant for a fixed batch: targets of reshapes by their output, first sizes of all values."""

    targets: dict[str, list[int]]
    batches: dict[str, int]

    @classmethod
    def of(cls, model: ir.Model, batch: int) -> _Probe:
        """Folds a copy of the model with this batch.

        The shapes become outputs of the copy, because folding removes a reshape that changes nothing.
        """
        probe = model.clone()
        value = probe.graph.inputs[0]
        value.shape = ir.Shape([batch, *list(value.shape or ())[1:]])
        reshapes = [node for node in probe.graph if node.op_type == "Reshape" and not node.domain]
        names = {str(node.outputs[0].name): node.inputs[1].name for node in reshapes if node.inputs[1] is not None}
        shapes = dict.fromkeys(node.inputs[1] for node in reshapes)
        outputs = len(probe.graph.outputs)
        probe.graph.outputs.extend(shape for shape in shapes if shape is not None and shape.producer() is not None)
        infer_shapes(probe)
        fold_constants(probe)
        infer_shapes(probe)
        tensors = {value.name: ir.convenience.get_const_tensor(value) for value in probe.graph.outputs[outputs:]}
        found = {name: tensors.get(shape) for name, shape in names.items()}
        values = [*probe.graph.inputs, *(value for node in probe.graph for value in node.outputs)]
        batches = {str(v.name): v.shape[0] for v in values if v.shape is not None and len(v.shape)}
        return cls(
            {name: [int(d) for d in tensor.numpy()] for name, tensor in found.items() if tensor is not None},
            {name: size for name, size in batches.items() if isinstance(size, int)},
        )


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None
