"""Removes operations that change nothing and joins those that are one, by the rules of onnxscript's rewriter.

No-op slices and casts go; a Relu joins a Clip, a Pad the Conv behind, a reshape another reshape, a transpose another
transpose. Constants are folded once more afterwards.

Initializers are not deduplicated: two layers whose biases happen to be equal keep a bias each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common
from onnxscript import rewriter

from .fold_constants import fold_constants
from .infer_shapes import infer_shapes

if TYPE_CHECKING:
    import onnx_ir as ir


def simplify(model: ir.Model) -> None:
    """Runs the rules, keeps the shapes of all values, and strips documentation and metadata of the exporter."""
    infer_shapes(model)
    rewriter.rewrite(model)
    fold_constants(model)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
