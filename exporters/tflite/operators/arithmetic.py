"""Elementwise arithmetic of two or more operands, broadcast as in NumPy."""

from __future__ import annotations

from functools import reduce

import numpy as np

from edgekron.exporters.tflite.layout import NHWC, Order, Value, arrange_constant, free, reshape
from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call

_CODES = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Max": "MAXIMUM", "Min": "MINIMUM"}


@translates(*_CODES)
def arithmetic(call: Call) -> None:
    """All operands in one order; constants are transposed here, activations only where their order differs."""
    count = len(call.node.inputs)
    rank = max(call.rank(i) for i in range(count))
    values = {i: _raised(call, i, rank) for i in range(count) if call.array(i) is None}
    order = _common_order(list(values.values()), rank)

    def operand(index: int) -> Tensor:
        if index in values:
            return call.translation.arranged(values[index], order).tensor
        array = arrange_constant(call.numbers(index, f"input {index}"), order)
        return call.program.constant(call.input_name(index), array)

    operands = list(map(operand, range(count)))
    code = _CODES[call.node.op_type]

    def combine(a: Tensor, b: Tensor) -> Tensor:
        return call.program.emit(code, [a, b], np.broadcast_shapes(a.shape, b.shape), call.name)

    y = reduce(combine, operands)
    missing = rank - len(y.shape)
    call.finish(call.program.reshape(y, (1,) * missing + y.shape, f"{call.name}/full"), order)


def _raised(call: Call, index: int, rank: int) -> Value:
    """An activation with axes of size one in front, up to ``rank``."""
    value = call.value(index)
    missing = rank - len(value.order)
    if not missing:
        return value
    return reshape(call.program, value, (1,) * missing + value.shape, f"{value.tensor.name}/rank{rank}")


def _common_order(values: list[Value], rank: int) -> Order:
    """The order in which the fewest values move: NHWC if one has it, else that of the largest."""
    if rank == 4 and any(free(value, NHWC) for value in values):
        return NHWC
    return max(values, key=lambda value: np.prod(value.shape)).order
