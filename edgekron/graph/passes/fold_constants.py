"""Computes all values that depend on constants alone, among them chains of Shape, Gather and Concat on known sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common
from onnxscript import optimizer

if TYPE_CHECKING:
    import onnx_ir as ir

_ANY_SIZE = 1 << 62


def fold_constants(model: ir.Model) -> None:
    """Folds constants of any size, keeps the results as initializers, and removes nodes that nothing uses then."""
    optimizer.fold_constants(model, onnx_shape_inference=True, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
