"""Infers the shape and type of every value from those of the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

if TYPE_CHECKING:
    import onnx_ir as ir


def infer_shapes(model: ir.Model) -> None:
    """Forgets the shapes of all computed values and infers them anew, constant shapes followed through the graph."""
    forget_shapes(model)
    common.ShapeInferencePass(check_type=True, strict_mode=False, data_prop=True)(model)


def forget_shapes(model: ir.Model) -> None:
    """Drops the recorded shape of every computed value."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
