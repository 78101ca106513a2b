"""Comparisons, logic, choices and casts: operators with booleans or integers."""

from __future__ import annotations

import onnx_ir as ir

from edgekron.exporters.tflite.operands import aligned, broadcast, finish
from edgekron.exporters.tflite.program import BOOLEAN, FLOAT, INTEGER, type_name
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, NUMBERS, Call

_COMPARISONS = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
}
_LOGIC = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL"}
_TYPES = {
    ir.DataType.FLOAT: FLOAT,
    ir.DataType.INT32: INTEGER,
    ir.DataType.INT64: INTEGER,
    ir.DataType.BOOL: BOOLEAN,
}


@translates(*_COMPARISONS)
def comparison(call: Call) -> None:
    """Booleans, of float32 or int32 operands."""
    tensors, order = aligned(call, kinds=NUMBERS)
    finish(call, broadcast(call, _COMPARISONS[call.node.op_type], tensors, BOOLEAN), order)


@translates(*_LOGIC)
def logic(call: Call) -> None:
    """Booleans of booleans; an exclusive or is an inequality."""
    tensors, order = aligned(call, kinds="b")
    finish(call, broadcast(call, _LOGIC[call.node.op_type], tensors), order)


@translates("Not")
def logical_not(call: Call) -> None:
    """LOGICAL_NOT."""
    x = call.value(kinds="b")
    call.finish(call.program.emit("LOGICAL_NOT", [x.tensor], x.tensor.shape, call.name), x.order)


@translates("Where")
def where(call: Call) -> None:
    """SELECT_V2: values of the second input where the first is true, else of the third."""
    (condition, yes, no), order = aligned(call, kinds=("b", ANY, ANY))
    finish(call, broadcast(call, "SELECT_V2", [condition, yes, no], yes.dtype), order)


@translates("Cast", "CastLike")
def cast(call: Call) -> None:
    """CAST between float32, booleans and integers, which are int32 in the file."""
    if call.node.op_type == "CastLike":
        like = call.array(1)
        target = like.dtype if like is not None else call.value(1, kinds=ANY).tensor.dtype
        wanted = ir.DataType.from_numpy(target)
    else:
        wanted = ir.DataType(call.attribute("to"))
    if wanted not in _TYPES:
        call.refuse(f"it casts to {wanted}, which the file has no place for", "keep the network in float32")
    dtype = _TYPES[wanted]
    array = call.array(0)
    if array is not None:
        call.translation.constants[call.node.outputs[0]] = array.astype(wanted.numpy())
        return
    x = call.value(kinds=ANY)
    if x.tensor.dtype == dtype:
        call.result(x)
        return
    y = call.program.emit(
        "CAST",
        [x.tensor],
        x.tensor.shape,
        call.name,
        dtype=dtype,
        inDataType=type_name(x.tensor.dtype),
        outDataType=type_name(dtype),
    )
    call.finish(y, x.order)
