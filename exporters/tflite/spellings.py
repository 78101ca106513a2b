"""Replaces the formula of an older operator set by the one node of a newer set, in every order of the factors."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnxscript.rewriter import pattern

#: The largest relative distance of a network's constant from the number meant: float32's own rounding.
ROUNDING = 1e-6


def number(value: float) -> pattern.Constant:
    """A constant of this value in a pattern."""
    return pattern.Constant(value, rel_tol=ROUNDING)


def joined(model: ir.Model, rules: pattern.RewriteRuleSet, operators: Collection[str]) -> ir.Model:
    """A copy of the model with every spelling replaced; the ``model`` itself if it has none of the ``operators`` that
    a spelling has.
    """
    if not any(node.op_type in operators for node in model.graph):
        return model
    made = model.clone()
    rules.apply_to_model(made)
    # The rewriter may state the operator set that introduced the node; the other nodes keep the meaning of theirs.
    made.opset_imports.update(model.opset_imports)
    return made
