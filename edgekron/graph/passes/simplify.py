"""Removes what changes nothing and joins what is one operation: no-op slices and casts, Relu with Clip, a Pad before a Conv,
chains of reshapes and transposes. Rules of onnxscript's rewriter, followed by one more folding of constants.

Initializers are not deduplicated: two layers whose biases happen to be equal keep a bias each.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter

from .fold_constants import fold_constants
from .infer_shapes import infer_shapes


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
