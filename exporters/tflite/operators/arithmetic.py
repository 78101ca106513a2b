"""Elementwise arithmetic of two or more operands, broadcast as in NumPy."""

from __future__ import annotations

from functools import reduce

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.operands import aligned, broadcast, finish
from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import NUMBERS, Call

_CODES = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Max": "MAXIMUM", "Min": "MINIMUM", "Sum": "ADD"}


@translates(*_CODES)
def arithmetic(call: Call) -> None:
    """TFLite's operator of two operands, applied again for every operand after the second."""
    tensors, order = aligned(call, kinds=NUMBERS)
    finish(call, _combined(call, _CODES[call.node.op_type], tensors), order)


@translates("Div")
def divide(call: Call) -> None:
    """DIV of float32 operands."""
    tensors, order = aligned(call)
    finish(call, broadcast(call, "DIV", tensors), order)


@translates("Mean")
def mean(call: Call) -> None:
    """The sum of the operands over their number."""
    tensors, order = aligned(call)
    total = _combined(call, "ADD", tensors)
    finish(call, Formula(call)("MUL", total, 1 / len(tensors)), order)


@translates("Mod")
def modulo(call: Call) -> None:
    """The remainder with the sign of the dividend (fmod=1, the only one for float32): sign(a) (|a| mod |b|)."""
    if not call.attribute("fmod", 0):
        call.refuse("fmod is 0, which ONNX defines for integers only", "use fmod=1")
    (a, b), order = aligned(call)
    f = Formula(call)
    rest = f("FLOOR_MOD", f("ABS", a), f("ABS", b))
    finish(call, f("MUL", rest, f("SIGN", a)), order)


def _combined(call: Call, code: str, tensors: list[Tensor]) -> Tensor:
    kinds = {t.dtype for t in tensors}
    if len(kinds) > 1:
        call.refuse(f"its operands are of types {sorted(map(str, kinds))}", "cast them to one type")

    def combine(a: Tensor, b: Tensor) -> Tensor:
        return broadcast(call, code, [a, b])

    return reduce(combine, tensors)
