"""Operators of one axis, moved to the end of the tensor: Softmax, LogSoftmax, Hardmax and TopK."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import Value, reshape
from edgekron.exporters.tflite.program import BOOLEAN, INTEGER, Tensor, type_name
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call


@translates("Softmax", "LogSoftmax")
def softmax(call: Call) -> None:
    """SOFTMAX or LOG_SOFTMAX along ``axis``, moved to the end; before operator set 13, over all axes from there on."""

    def compute(x: Tensor) -> Tensor:
        if len(x.shape) > 4:
            call.refuse(f"an input of {len(x.shape)} axes is more than the runtimes' 4", "reshape it before")
        if call.node.op_type == "LogSoftmax":
            return call.program.emit("LOG_SOFTMAX", [x], x.shape, call.name)
        return call.program.emit("SOFTMAX", [x], x.shape, call.name, beta=1.0)

    _by_rows(call, compute)


@translates("Hardmax")
def hardmax(call: Call) -> None:
    """One at the first maximum along ``axis``, else zero; before operator set 13, over all axes from there on."""
    f = Formula(call)

    def compute(x: Tensor) -> Tensor:
        rows, size = math.prod(x.shape[:-1]), x.shape[-1]
        inputs = [f.view(x, (rows, size)), call.program.integers(f"{call.name}/axis", 1)]
        greatest = call.program.emit(
            "ARG_MAX", inputs, (rows,), f"{call.name}/greatest", dtype=INTEGER, outputType=type_name(INTEGER)
        )
        places = call.program.integers(f"{call.name}/places", np.arange(size))
        chosen = f("EQUAL", f.view(greatest, (rows, 1)), places, dtype=BOOLEAN)
        types = {"inDataType": "BOOL", "outDataType": "FLOAT32"}
        return call.program.reshape(f("CAST", chosen, dtype=x.dtype, **types), x.shape, call.name)

    _by_rows(call, compute)


@translates("TopK")
def top_k(call: Call) -> None:
    """The greatest or smallest values along one axis, in order, and their indices, int32 in the file."""
    value, f = call.value(), Formula(call)
    count = int(call.constant(1, "number of values").reshape(())) if call.has(1) else int(call.attribute("k"))
    axis = int(call.attribute("axis", -1)) % len(value.order)
    if count > value.shape[axis]:
        call.refuse(f"it takes {count} of {value.shape[axis]} values", "take no more than there are")
    order = _ending(value, axis)
    x = call.value(0, order).tensor
    greatest = bool(call.attribute("largest", 1))
    shape = (*x.shape[:-1], count)
    found, places = (Tensor(f"{call.name}/{what}", shape, dtype=t) for what, t in (("top", x.dtype), ("at", INTEGER)))
    inputs = [x if greatest else f("NEG", x), call.program.integers(f"{call.name}/count", count)]
    call.program.append("TOPK_V2", inputs, [found, places])
    call.result(Value(found if greatest else f("NEG", found), order), 0)
    if len(call.node.outputs) > 1:
        call.result(Value(places, order), 1)


def _by_rows(call: Call, compute: Callable[[Tensor], Tensor]) -> None:
    """Declares ``compute`` of the input with the node's axis last as the result; ``compute`` keeps the shape."""
    value, rank = call.value(), call.rank()
    axis = int(call.attribute("axis", -1 if call.translation.opset >= 13 else 1)) % rank
    if call.translation.opset < 13 and axis != rank - 1:
        shape = value.shape
        rows = reshape(call.program, value, (math.prod(shape[:axis]), math.prod(shape[axis:])), f"{call.name}/rows")
        y = compute(call.translation.arranged(rows, (0, 1)).tensor)
        call.result(reshape(call.program, Value(y, (0, 1)), shape, call.name))
        return
    order = _ending(value, axis)
    call.finish(compute(call.value(0, order).tensor), order)


def _ending(value: Value, axis: int) -> tuple[int, ...]:
    """The value's order, with ``axis`` moved to the end."""
    if value.order[-1] == axis:
        return value.order
    return (*(a for a in range(len(value.order)) if a != axis), axis)
