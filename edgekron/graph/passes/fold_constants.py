"""Computes all values that depend on constants alone, among them chains of Shape, Gather and Concat on known sizes."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

_ANY_SIZE = 1 << 62
#: Elements up to which a ConstantOfShape becomes a stored constant: sizes and pads, not images of one value.
_LARGEST_FILLED = 4096


def fold_constants(model: ir.Model) -> None:
    """Folds constants of any size, keeps the results as initializers, and removes nodes that nothing uses then."""
    optimizer.fold_constants(
        model,
        onnx_shape_inference=True,
        input_size_limit=_ANY_SIZE,
        output_size_limit=_ANY_SIZE,
        should_fold=_folds,
    )
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)


def _folds(node: ir.Node) -> bool | None:
    """True for what onnxscript would leave; None where its own rules are to say."""
    if node.op_type != "ConstantOfShape" or node.domain:
        return None
    given = node.inputs[0]
    shape = None if given is None else ir.convenience.get_const_tensor(given)
    small = shape is not None and math.prod(int(size) for size in shape.numpy()) <= _LARGEST_FILLED
    return True if small else None
