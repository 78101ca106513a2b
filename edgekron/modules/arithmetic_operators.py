"""Operators on single values and along axes, as functions of torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator_registry import OPERATORS, Function, OperatorCall, translates


def _divided(a: Tensor, b: Tensor) -> Tensor:
    """The quotient; of integers, rounded towards zero, as sizes are divided."""
    return torch.div(a, b) if a.is_floating_point() or b.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Div": _divided,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Sub": torch.sub,
    "Sum": torch.add,
}
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
}

OPERATORS["PRelu"] = lambda call: lambda x, slope: torch.where(x >= 0, x, x * slope)
OPERATORS["Where"] = lambda call: torch.where


@translates(*_UNARY)
def _unary(call: OperatorCall) -> Function:
    return _UNARY[call.operator]


@translates(*_VARIADIC)
def _variadic(call: OperatorCall) -> Function:
    function = _VARIADIC[call.operator]
    return lambda *x: reduce(function, x)


@translates(*_REDUCTIONS)
def _reduce(call: OperatorCall) -> Function:
    function, keep = _REDUCTIONS[call.operator], bool(call.integer("keepdims", 1))
    axes, nothing = call.reader(1), call.integer("noop_with_empty_axes", 0)

    def run(*inputs: Tensor) -> Tensor:
        x, chosen = inputs[0], axes(inputs) or call.list("axes", [])
        return x if nothing and not chosen else function(x, chosen or list(range(x.ndim)), keep)

    return run


@translates("Clip")
def _clip(call: OperatorCall) -> Function:
    low, high = (None if (c := call.constant(i)) is None else c.item() for i in (1, 2))
    return lambda x, *_: x if low is None and high is None else torch.clamp(x, low, high)


@translates("Mod")
def _mod(call: OperatorCall) -> Function:
    return torch.fmod if call.integer("fmod", 0) else torch.remainder


@translates("LeakyRelu")
def _leaky(call: OperatorCall) -> Function:
    slope = call.number("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@translates("Elu")
def _elu(call: OperatorCall) -> Function:
    alpha = call.number("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@translates("Gelu")
def _gelu(call: OperatorCall) -> Function:
    kind = call.text("approximate", "none")
    return lambda x: F.gelu(x, approximate=kind)


@translates("HardSigmoid")
def _hard_sigmoid(call: OperatorCall) -> Function:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


@translates("Softmax", "LogSoftmax")
def _softmax(call: OperatorCall) -> Function:
    axis = call.integer("axis", -1)
    function = F.softmax if call.operator == "Softmax" else F.log_softmax
    return lambda x: function(x, axis)


@translates("Einsum")
def _einsum(call: OperatorCall) -> Function:
    equation = call.text("equation", "")
    return lambda *x: torch.einsum(equation, *x)
