"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: the same values seen in other axes."""

from __future__ import annotations

import math

from edgekron.exporters.tflite.layout import Value, reshape
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call, axes_of


@translates("Reshape")
def reshape_to(call: Call) -> None:
    """RESHAPE; the values keep ONNX's order, so that data moves if NHWC would change this order."""
    source = call.value(kinds=ANY).shape
    wanted = call.vector(1, "shape") or []
    if not call.attribute("allowzero", 0):
        wanted = [source[i] if n == 0 else n for i, n in enumerate(wanted)]
    if wanted.count(-1) == 1:
        known = math.prod(n for n in wanted if n != -1)
        wanted = [math.prod(source) // known if n == -1 else n for n in wanted]
    if math.prod(wanted) != math.prod(source):
        call.refuse(
            f"an input {list(source)} cannot be reshaped to {wanted}",
            "export with the batch that the shape was written for, or write -1 for the batch in the shape",
        )
    _reshape(call, wanted)


@translates("Flatten")
def flatten(call: Call) -> None:
    """Two axes: all axes before ``axis`` as one, and the others as one."""
    shape = call.value(kinds=ANY).shape
    axis = int(call.attribute("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    _reshape(call, [math.prod(shape[:axis]), math.prod(shape[axis:])])


@translates("Squeeze")
def squeeze(call: Call) -> None:
    """The input without the given axes, or without all axes of size one."""
    shape = call.value(kinds=ANY).shape
    axes = call.vector(1, "axes")
    dropped = axes_of(axes, len(shape)) if axes else [a for a, n in enumerate(shape) if n == 1]
    if any(shape[a] != 1 for a in dropped):
        call.refuse(f"axes {dropped} of {list(shape)} are not all of size one", "squeeze axes of size one")
    _reshape(call, [n for a, n in enumerate(shape) if a not in dropped])


@translates("Unsqueeze")
def unsqueeze(call: Call) -> None:
    """The input with axes of size one at the given places."""
    shape = list(call.value(kinds=ANY).shape)
    axes = call.vector(1, "axes") or []
    for axis in sorted(axes_of(axes, len(shape) + len(axes))):
        shape.insert(axis, 1)
    _reshape(call, shape)


@translates("Transpose")
def transpose(call: Call) -> None:
    """Renames axes; data moves only if a later operator needs another order."""
    x = call.value(kinds=ANY)
    rank = len(x.order)
    order = [int(a) for a in call.attribute("perm", tuple(reversed(range(rank))))]
    call.result(Value(x.tensor, tuple(order.index(a) for a in x.order)))


def _reshape(call: Call, shape: list[int]) -> None:
    call.result(reshape(call.program, call.value(kinds=ANY), shape, call.name))
