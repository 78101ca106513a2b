"""Operators that rearrange values, and those that compute with sizes, as functions of torch tensors.

Sizes that a graph computes are integer tensors on the device of the value that they were taken from. A translator reads
a shape when the function runs (``OperatorCall.reader``), so that one function serves every batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from .operator_registry import OPERATORS, TYPES, Function, OperatorCall, translates


def _range(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    count = max(0, math.ceil((limit.item() - start.item()) / step.item()))
    return start + step * torch.arange(count, dtype=start.dtype, device=start.device)


OPERATORS["CastLike"] = lambda call: lambda x, like: x.to(like.dtype)
OPERATORS["Range"] = lambda call: _range
OPERATORS["Size"] = lambda call: lambda x: torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@translates("Shape")
def _shape(call: OperatorCall) -> Function:
    kept = slice(call.integer("start", 0), call.optional("end"))
    return lambda x: torch.tensor(x.shape[kept], dtype=torch.int64, device=x.device)


@translates("ConstantOfShape")
def _constant_of_shape(call: OperatorCall) -> Function:
    shape, given = call.reader(0), call.tensor("value")
    value = torch.zeros(()) if given is None else torch.tensor(given).reshape(())
    return lambda *x: value.to(x[0].device).expand(shape(x) or []).clone()


@translates("Expand")
def _expand(call: OperatorCall) -> Function:
    shape = call.reader(1)
    return lambda *x: x[0].expand(torch.broadcast_shapes(x[0].shape, tuple(shape(x) or [])))


@translates("Tile")
def _tile(call: OperatorCall) -> Function:
    repeats = call.reader(1)
    return lambda *x: x[0].repeat(repeats(x) or [])


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
    shape, zeros = call.reader(1), call.integer("allowzero", 0)

    def run(*inputs: Tensor) -> Tensor:
        x, target = inputs[0], shape(inputs) or []
        return x.reshape([x.shape[i] if n == 0 and not zeros else n for i, n in enumerate(target)])

    return run


@translates("Flatten")
def _flatten(call: OperatorCall) -> Function:
    axis = call.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        at = axis + x.ndim if axis < 0 else axis
        return x.reshape(1, -1) if at == 0 else x.reshape(-1, math.prod(x.shape[at:]))

    return run


@translates("Squeeze")
def _squeeze(call: OperatorCall) -> Function:
    axes = call.reader(1)

    def run(*inputs: Tensor) -> Tensor:
        chosen = axes(inputs)
        return inputs[0].squeeze() if chosen is None else inputs[0].squeeze(tuple(chosen))

    return run


@translates("Unsqueeze")
def _unsqueeze(call: OperatorCall) -> Function:
    axes = call.reader(1)

    def run(*inputs: Tensor) -> Tensor:
        given = axes(inputs) or []
        rank = inputs[0].ndim + len(given)
        return reduce(lambda y, axis: y.unsqueeze(axis), sorted(a % rank for a in given), inputs[0])

    return run


@translates("Slice")
def _slice(call: OperatorCall) -> Function:
    readers = [call.reader(index) for index in (1, 2, 3, 4)]

    def run(*inputs: Tensor) -> Tensor:
        x = inputs[0]
        starts, ends, axes, steps = (reader(inputs) for reader in readers)
        count = len(starts or [])
        places = zip(starts or [], ends or [], axes or range(count), steps or [1] * count, strict=True)
        for start, end, axis, step in places:
            kept = range(x.shape[axis])[start:end:step]
            if step > 0:
                x = x[(slice(None),) * (axis % x.ndim) + (slice(kept.start, kept.stop, step),)]
            else:
                x = x.index_select(axis, torch.tensor(kept, dtype=torch.int64, device=x.device))
        return x

    return run


@translates("Split")
def _split(call: OperatorCall) -> Function:
    axis, sizes, parts = call.integer("axis", 0), call.reader(1), len(call.node.outputs)
    return lambda *x: x[0].split(sizes(x) or -(-x[0].shape[axis] // parts), axis)


@translates("Gather")
def _gather(call: OperatorCall) -> Function:
    axis = call.integer("axis", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        at = axis % x.ndim
        picked = x.index_select(at, indices.reshape(-1).long() % x.shape[at])
        return picked.reshape((*x.shape[:at], *indices.shape, *x.shape[at + 1 :]))

    return run


@translates("Trilu")
def _trilu(call: OperatorCall) -> Function:
    diagonal, function = call.reader(1), torch.triu if call.integer("upper", 1) else torch.tril

    def run(*inputs: Tensor) -> Tensor:
        (offset,) = diagonal(inputs) or [0]
        return function(inputs[0], offset)

    return run


@translates("Cast")
def _cast(call: OperatorCall) -> Function:
    kind = TYPES.get(call.integer("to", 1))
    if kind is None:
        call.refuse("a type that torch is not given")
    return lambda x: x.to(kind)


@translates("ReduceProd")
def _product(call: OperatorCall) -> Function:
    axes, keep = call.reader(1), bool(call.integer("keepdims", 1))
    if call.integer("noop_with_empty_axes", 0):
        call.refuse("noop_with_empty_axes")

    def run(*inputs: Tensor) -> Tensor:
        x = inputs[0]
        chosen: Sequence[int] = axes(inputs) or call.list("axes", []) or range(x.ndim)
        for axis in sorted((a % x.ndim for a in chosen), reverse=True):
            x = x.prod(axis, keepdim=keep)
        return x

    return run
