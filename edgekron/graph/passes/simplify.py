"""Removes what changes nothing and joins what is one operation.

No-op slices and casts go, Relu joins a Clip, a Pad the Conv behind it, reshapes and transposes their like. Rules
of onnxscript's rewriter, followed by one more folding of constants.

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
