"""Operators on single values, along axes, and on shapes, as functions of torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from .operator_registry import OPERATORS, Function, OperatorCall, translates

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": torch.add,
    "Div": torch.div,
    "MatMul": torch.matmul,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
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
_TYPES = {ir.DataType.FLOAT: torch.float32, ir.DataType.INT64: torch.int64, ir.DataType.INT32: torch.int32}

OPERATORS["PRelu"] = lambda call: lambda x, slope: torch.where(x >= 0, x, x * slope)


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
    axes = call.integers(1) or call.list("axes", [])
    if not axes and call.integer("noop_with_empty_axes", 0):
        return lambda x, *_: x
    chosen = axes or list(range(call.rank))
    return lambda x, *_: function(x, chosen, keep)


@translates("Clip")
def _clip(call: OperatorCall) -> Function:
    low, high = (None if (c := call.constant(i)) is None else float(c) for i in (1, 2))
    return lambda x, *_: x if low is None and high is None else torch.clamp(x, low, high)


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


@translates("Concat")
def _concat(call: OperatorCall) -> Function:
    axis = call.integer("axis", 0)
    return lambda *x: torch.cat(x, axis)


@translates("Transpose")
def _transpose(call: OperatorCall) -> Function:
    order = call.list("perm", [])
    return lambda x: x.permute(order or list(range(x.ndim))[::-1])


@translates("Reshape")
def _reshape(call: OperatorCall) -> Function:
    shape = call.integers(1) or []
    if 0 in shape and call.integer("allowzero", 0):
        call.refuse("allowzero")
    return lambda x, *_: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


@translates("Flatten")
def _flatten(call: OperatorCall) -> Function:
    axis = call.integer("axis", 1) % (call.rank + 1)
    if axis == 0:
        return lambda x: x.reshape(1, -1)
    return lambda x: x.reshape([-1, int(torch.tensor(x.shape[axis:]).prod())])


@translates("Squeeze")
def _squeeze(call: OperatorCall) -> Function:
    axes = call.integers(1)
    if axes is None:
        call.refuse("no axes")
    return lambda x, *_: x.squeeze(axes)


@translates("Unsqueeze")
def _unsqueeze(call: OperatorCall) -> Function:
    given = call.integers(1) or []
    axes = sorted(a % (call.rank + len(given)) for a in given)
    return lambda x, *_: reduce(lambda y, axis: y.unsqueeze(axis), axes, x)


@translates("Expand")
def _expand(call: OperatorCall) -> Function:
    shape = call.integers(1) or []
    return lambda x, *_: x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


@translates("Slice")
def _slice(call: OperatorCall) -> Function:
    starts, ends = call.integers(1) or [], call.integers(2) or []
    axes = call.integers(3) or list(range(len(starts)))
    steps = call.integers(4) or [1] * len(starts)

    def run(x: Tensor, *_: Tensor) -> Tensor:
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            kept = range(x.shape[axis])[start:end:step]
            if step > 0:
                index = [slice(None)] * (axis % x.ndim) + [slice(kept.start, kept.stop, step)]
                x = x[tuple(index)]
            else:
                x = x.index_select(axis, torch.tensor(kept, device=x.device))
        return x

    return run


@translates("Split")
def _split(call: OperatorCall) -> Function:
    axis, sizes, parts = call.integer("axis", 0), call.integers(1), len(call.node.outputs)
    return lambda x, *_: x.split(sizes or -(-x.shape[axis] // parts), axis)


@translates("Gather")
def _gather(call: OperatorCall) -> Function:
    axis, constant = call.integer("axis", 0), call.constant(1)
    if constant is None:
        call.refuse("no indices")
    shape, indices = constant.shape, constant.reshape(-1)

    def run(x: Tensor, *_: Tensor) -> Tensor:
        at, size = axis % x.ndim, x.shape[axis]
        picked = x.index_select(at, torch.tensor(indices % size, device=x.device))
        return picked.reshape(*x.shape[:at], *shape, *x.shape[at + 1 :])

    return run


@translates("Cast")
def _cast(call: OperatorCall) -> Function:
    kind = _TYPES.get(ir.DataType(call.integer("to", 1)))
    if kind is None:
        call.refuse("a type other than float32, int32 and int64")
    return lambda x: x.to(kind)


@translates("Einsum")
def _einsum(call: OperatorCall) -> Function:
    equation = call.text("equation", "")
    return lambda *x: torch.einsum(equation, *x)
