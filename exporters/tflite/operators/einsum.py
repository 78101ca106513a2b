"""Einsum of one operand (sums and a new order of axes) or two (a matrix product, perhaps of many matrices)."""

from __future__ import annotations

import math

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import Value
from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call

from .linear import batch_matmul, fully_connected


@translates("Einsum")
def einsum(call: Call) -> None:
    """Letters of both operands and the result are batches of a matrix product, those missing in the result its sum."""
    operands, result = _parsed(call)
    letters = [list(operand) for operand in operands]
    tensors = [_summed(call, i, letters, result) for i in range(len(operands))]
    if len(tensors) == 1:
        call.result(Value(tensors[0], tuple(result.index(a) for a in letters[0])))
        return
    left, right = letters
    batch = [a for a in left if a in right and a in result]
    inner = [a for a in left if a in right and a not in result]
    rows, columns = [a for a in left if a not in right], [a for a in right if a not in left]
    sizes = {a: n for names, t in zip(letters, tensors, strict=True) for a, n in zip(names, t.shape, strict=True)}
    groups = [math.prod(sizes[a] for a in names) for names in (batch, rows, inner, columns)]
    matrix = call.array(1)
    a = _matrices(call, tensors[0], left, [*batch, *rows, *inner], (groups[0], groups[1], groups[2]), 0)
    if matrix is not None and not batch and len(right) == matrix.ndim:
        axes = [right.index(name) for name in (*columns, *inner)]
        weight = call.numbers(1, "matrix").transpose(axes).reshape(groups[3], groups[2])
        y = fully_connected(call.program, a, weight, None, call.name, call.input_name(1))
    else:
        b = _matrices(call, tensors[1], right, [*batch, *inner, *columns], (groups[0], groups[2], groups[3]), 1)
        y = batch_matmul(call, a, b)
    found = [*batch, *rows, *columns]
    y = call.program.reshape(y, [sizes[name] for name in found], f"{call.name}/axes")
    call.result(Value(y, tuple(result.index(name) for name in found)))


def _parsed(call: Call) -> tuple[list[str], str]:
    """The letters of each operand and of the result."""
    equation = str(call.attribute("equation")).replace(" ", "")
    left, _, result = equation.partition("->")
    operands = left.split(",")
    if "." in equation:
        call.refuse(f"its equation {equation!r} has an ellipsis", "write the axes out")
    if "->" not in equation:
        once = [a for a in left if a.isalpha() and left.count(a) == 1]
        result = "".join(sorted(once))
    if len(operands) > 2 or any(len(set(names)) < len(names) for names in operands):
        call.refuse(
            f"its equation {equation!r} has more than two operands, or an axis twice in one", "split it into products"
        )
    return operands, result


def _summed(call: Call, index: int, letters: list[list[str]], result: str) -> Tensor:
    """An operand without the axes that nothing else has; their letters are dropped."""
    names = letters[index]
    value = call.value(index)
    tensor = value.tensor
    names[:] = [names[a] for a in value.order]
    elsewhere = {*result, *(a for i, other in enumerate(letters) if i != index for a in other)}
    alone = [i for i, a in enumerate(names) if a not in elsewhere]
    names[:] = [a for a in names if a in elsewhere]
    return Formula(call).reduce("SUM", tensor, alone, keep=False) if alone else tensor


def _matrices(
    call: Call, x: Tensor, letters: list[str], wanted: list[str], shape: tuple[int, int, int], index: int
) -> Tensor:
    """An operand as one matrix for each value of the batch."""
    moved = call.program.transpose(x, [letters.index(a) for a in wanted], f"{call.name}/operand{index}")
    return call.program.reshape(moved, shape, f"{call.name}/matrices{index}")
