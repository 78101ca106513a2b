"""Replaces hard-swish as the formula of older operator sets by the one node of newer sets:

    x clip(x + 3, 0, 6) / 6   ->   HardSwish(x)

in every order of the factors, with a division by six or a product by a sixth, and with HardSigmoid for the factor
beside x. The spellings round in different places and are equal to a few units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from .spellings import ROUNDING, joined, number

_Builder = pattern.OpsetPatternBuilder
#: From x and the clipped sum to their product, over six.
_Product = Callable[[_Builder, pattern.Var, object], object]


def join_hard_swish(model: ir.Model) -> ir.Model:
    """A copy of the model with every spelling replaced; the ``model`` itself if it has no Clip and no HardSigmoid."""
    return joined(model, _RULES, ("Clip", "HardSigmoid"))


_PRODUCTS: tuple[_Product, ...] = (
    lambda op, x, g: op.Div(op.Mul(x, g), number(6.0)),
    lambda op, x, g: op.Mul(op.Mul(x, g), number(1 / 6)),
    lambda op, x, g: op.Mul(x, op.Div(g, number(6.0))),
    lambda op, x, g: op.Mul(x, op.Mul(g, number(1 / 6))),
    lambda op, x, g: op.Mul(op.Div(x, number(6.0)), g),
    lambda op, x, g: op.Mul(op.Mul(x, number(1 / 6)), g),
)


def _hard_swish(op: Any, x: ir.Value, **others: object) -> ir.Value:
    del others
    return op.HardSwish(x)


def _rule(product: _Product) -> pattern.RewriteRule:
    def spelling(op: _Builder, x: pattern.Var) -> object:
        return product(op, x, op.Clip(op.Add(x, number(3.0)), number(0.0), number(6.0)))

    return pattern.RewriteRule(spelling, _hard_swish)


def _gated(op: _Builder, x: pattern.Var) -> object:
    return op.Mul(x, op.HardSigmoid(x, _outputs=["gate"]))


def _is_hard_swish(context: object, gate: ir.Value, **others: object) -> bool:
    del context, others
    made = gate.producer()
    given = {} if made is None else made.attributes
    alpha, beta = (given[n].as_float() if n in given else value for n, value in (("alpha", 0.2), ("beta", 0.5)))
    return math.isclose(alpha, 1 / 6, rel_tol=ROUNDING) and math.isclose(beta, 0.5, rel_tol=ROUNDING)


_RULES = pattern.RewriteRuleSet(
    [*map(_rule, _PRODUCTS), pattern.RewriteRule(_gated, _hard_swish, _is_hard_swish)], commute=True
)
