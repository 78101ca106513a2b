"""Marks reshapes that keep the batch: the first entry of their shape becomes 0, "as before".

A reshape of [B, d1, d2, ...] to [B, e1, e2, ...] or [-1, e1, e2, ...] with the same number of values in d and e keeps
the first size. With 0 as the first entry the reshape serves every batch, and shape inference knows its result.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgekron.graph.nodes import add_initializer


def keep_batch(model: ir.Model) -> None:
    """Rewrites every reshape to a constant shape that keeps the first dimension. Needs inferred shapes."""
    for node in model.graph:
        if node.op_type != "Reshape" or node.domain:
            continue
        target = _kept(node)
        if target is not None:
            set_shape(model.graph, node, target)


def _kept(node: ir.Node) -> list[int] | None:
    x, shape = node.inputs[0], node.inputs[1]
    if x is None or x.is_initializer() or x.shape is None or shape is None or shape.const_value is None:
        return None
    batch, *sizes = x.shape
    target = [int(d) for d in shape.const_value.numpy()]
    if not target or 0 in target or any(not isinstance(d, int) for d in sizes):
        return None
    total, rest = math.prod(d for d in sizes if isinstance(d, int)), math.prod(target[1:])
    same_batch = target[0] == batch or (target[0] == -1 and -1 not in target[1:])
    fits = total % rest == 0 if -1 in target[1:] else total == rest
    return [0, *target[1:]] if same_batch and fits else None


def set_shape(graph: ir.Graph, node: ir.Node, target: list[int]) -> None:
    """Gives a reshape the constant target ``target``, in which 0 means "as before"."""
    value = add_initializer(graph, f"{node.outputs[0].name}.shape", np.array(target, dtype=np.int64))
    node.attributes.pop("allowzero", None)
    node.replace_input_with(1, value)
