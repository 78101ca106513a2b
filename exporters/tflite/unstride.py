"""Slices with a step as slices without one.

XNNPACK runs slices of step one only; any other slice splits the network between two executors. If a step s divides an
axis of n values, the axis is n/s groups of s values, and taking every s-th value is taking one value of each group:

    x[:, ::2, ::2, :]  of [N, H, W, C]   =   [N * H/2, W, 2 C][:, :W/2, :C]

Here the step along H became the first half of the second axis, and the step along W the first half of the third axis.
A slice with a step is so written as a reshape, a slice of step one, and a reshape.
"""

from __future__ import annotations

from .operators.slicing import Range, ranges_of, strided_slice
from .program import Operator, Program, Shape


def unstride(program: Program) -> None:
    """Rewrites every slice with a step that divides its axis, in place."""
    operators, program.operators = program.operators, []
    for operator in operators:
        if operator.code != "STRIDED_SLICE" or not _rewrite(program, operator):
            program.operators.append(operator)


def _rewrite(program: Program, operator: Operator) -> bool:
    x, y = operator.inputs[0], operator.outputs[0]
    ranges = ranges_of(operator)
    if all(step == 1 for _, step, _ in ranges.values()):
        return False
    parts: list[tuple[int, int, int]] = []
    for axis, size in enumerate(x.shape):
        first, step, count = ranges.get(axis, (0, 1, size))
        if step == 1:
            parts.append((size, first, count))
        elif step > 1 and size == step * count and first < step:
            parts += [(count, 0, count), (step, first, 1)]
        else:
            return False
    shape, plain = _merge(parts)
    view = program.reshape(x, shape, f"{y.name}/groups")
    taken = strided_slice(program, view, plain, f"{y.name}/taken")
    program.reshape(taken, y.shape, y.name)
    program.write_to(program.operators[-1], y)
    return True


def _merge(parts: list[tuple[int, int, int]]) -> tuple[Shape, dict[int, Range]]:
    """Joins each axis that is taken whole to the axis before; an axis is given as (size, first, count)."""
    merged: list[tuple[int, int, int]] = []
    for size, first, count in parts:
        if merged and count == size:
            n, begin, taken = merged.pop()
            merged.append((n * size, begin * size, taken * size))
        else:
            merged.append((size, first, count))
    shape = tuple(size for size, _, _ in merged)
    return shape, {i: (first, 1, count) for i, (_, first, count) in enumerate(merged)}
