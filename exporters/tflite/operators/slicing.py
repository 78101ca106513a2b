"""Slice with any starts, ends and steps: STRIDED_SLICE."""

from __future__ import annotations

from typing import cast

import numpy as np

from edgekron.exporters.tflite.layout import Value
from edgekron.exporters.tflite.program import Operator, Program, Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call, axes_of

#: Along one axis: first index, step, and number of values.
Range = tuple[int, int, int]


@translates("Slice")
def slice_axes(call: Call) -> None:
    """STRIDED_SLICE with ONNX's clamped bounds; consecutive slices of different axes become one."""
    starts, ends = call.vector(1, "starts") or [], call.vector(2, "ends") or []
    x = call.value(kinds=ANY)
    axes = axes_of(call.vector(3, "axes") or range(len(starts)), len(x.order))
    steps = call.vector(4, "steps") or [1] * len(starts)
    ranges: dict[int, Range] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = x.axis(axis)
        taken = range(*slice(start, end, step).indices(x.tensor.shape[place]))
        if not taken:
            call.refuse(f"nothing is left of axis {axis} (starts {starts}, ends {ends})", "remove the node")
        ranges[place] = (taken.start, step, len(taken))
    call.result(Value(strided_slice(call.program, x.tensor, ranges, call.name), x.order))


def strided_slice(program: Program, x: Tensor, ranges: dict[int, Range], name: str) -> Tensor:
    """Takes (first, step, count) along each given axis of the tensor."""
    ranges = {axis: r for axis, r in ranges.items() if r != (0, 1, x.shape[axis])}
    before = program.writer(x)
    if before is not None and before.code == "STRIDED_SLICE":
        earlier = ranges_of(before)
        if not earlier.keys() & ranges.keys():
            x, ranges = before.inputs[0], {**earlier, **ranges}
    if not ranges:
        return x
    begin, end, step, shape = [], [], [], []
    whole = below = 0
    for axis, size in enumerate(x.shape):
        first, by, count = ranges.get(axis, (0, 1, size))
        stop = first + by * count
        # An axis that is taken whole, or read backwards to its start, has a bit in a mask in place of a number.
        whole |= (axis not in ranges) << axis
        below |= (stop < 0) << axis
        begin.append(first)
        end.append(max(stop, 0) if by < 0 else min(stop, size))
        step.append(by)
        shape.append(count)
    constants = [
        program.integers(f"{name}/{what}", values) for what, values in (("begin", begin), ("end", end), ("step", step))
    ]
    return program.emit("STRIDED_SLICE", [x, *constants], shape, name, beginMask=whole, endMask=whole | below)


def ranges_of(operator: Operator) -> dict[int, Range]:
    """The ranges of an operator that ``strided_slice`` wrote, by axis; axes that are taken whole are left out."""
    begin, step = (cast(np.ndarray, operator.inputs[i].data) for i in (1, 3))
    ranges = {a: (int(begin[a]), int(step[a]), n) for a, n in enumerate(operator.outputs[0].shape)}
    return {a: r for a, r in ranges.items() if r != (0, 1, operator.inputs[0].shape[a])}
