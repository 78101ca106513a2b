"""Gives the values of a graph their shapes for one size of the input, without writing that size into the graph.

Shapes that a graph computes (Shape, Gather, Concat, Reshape) are followed on a copy in which they are folded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from .fold_constants import fold_constants
from .infer_shapes import infer_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence


def know_sizes(model: ir.Model, shape: Sequence[int | str]) -> None:
    """Sets the shape of the input to ``shape``, and the shapes of all other values to those that follow."""
    model.graph.inputs[0].shape = ir.Shape(shape)
    infer_shapes(model)
    probe = model.clone()
    # What is folded loses its name; the shapes of what is left are what counts.
    fold_constants(probe)
    infer_shapes(probe)
    known = {value.name: value.shape for node in probe.graph for value in node.outputs if value.shape is not None}
    for node in model.graph:
        for value in node.outputs:
            value.shape = known.get(value.name, value.shape)
