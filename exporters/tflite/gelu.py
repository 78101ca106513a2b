"""Replaces GELU as the formula of older operator sets by the one node of newer sets:

    x (1 + erf(x / sqrt 2)) / 2   ->   Gelu(x)

in every order of the factors, with a division by the root or a product by its inverse. The spellings round in different
places and are equal to a few units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from .spellings import joined, number

_Builder = pattern.OpsetPatternBuilder
#: From x to its quotient by the root of two; from x and one more than the error function to their product.
_Argument = Callable[[_Builder, pattern.Var], object]
_Product = Callable[[_Builder, pattern.Var, object], object]


def join_gelu(model: ir.Model) -> ir.Model:
    """A copy of the model with every spelling replaced; the ``model`` itself if it has no Erf, and so no spelling."""
    return joined(model, _RULES, ("Erf",))


_ARGUMENTS: tuple[_Argument, ...] = (
    lambda op, x: op.Div(x, number(math.sqrt(2))),
    lambda op, x: op.Mul(x, number(math.sqrt(0.5))),
)
_PRODUCTS: tuple[_Product, ...] = (
    lambda op, x, e: op.Mul(op.Mul(x, e), number(0.5)),
    lambda op, x, e: op.Mul(x, op.Mul(e, number(0.5))),
    lambda op, x, e: op.Mul(op.Mul(x, number(0.5)), e),
)


def _rule(argument: _Argument, product: _Product) -> pattern.RewriteRule:
    def spelling(op: _Builder, x: pattern.Var) -> object:
        return product(op, x, op.Add(op.Erf(argument(op, x)), number(1.0)))

    def gelu(op: Any, x: ir.Value) -> ir.Value:
        return op.Gelu(x)

    return pattern.RewriteRule(spelling, gelu)


_RULES = pattern.RewriteRuleSet([_rule(a, p) for a in _ARGUMENTS for p in _PRODUCTS], commute=True)
