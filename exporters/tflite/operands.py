"""The operands of an elementwise operator, brought to one order of axes.

Constants are transposed at once; activations move only where their orders differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .layout import NHWC, Order, Value, arrange_constant, free, reshape
from .program import DType, Tensor
from .translation import FLOATS, Call


def aligned(call: Call, *, kinds: Sequence[str] | str = FLOATS) -> tuple[list[Tensor], Order]:
    """Every input of the node as a tensor that broadcasts with the others, and the order of their axes.

    ``kinds`` are the allowed kinds of values, of all inputs or of each. A tensor may have the last axes of the order
    alone.
    """
    count = len(call.node.inputs)
    allowed = [kinds] * count if isinstance(kinds, str) else list(kinds)
    rank = max(call.rank(i) for i in range(count))
    values = {i: _raised(call, i, rank, allowed[i]) for i in range(count) if call.array(i) is None}
    order = _common_order(list(values.values()), rank)

    def operand(index: int) -> Tensor:
        if index in values:
            return call.translation.arranged(values[index], order).tensor
        array = arrange_constant(call.parameter(index, f"input {index}", allowed[index]), order)
        return call.program.constant(call.input_name(index), array)

    return [operand(i) for i in range(count)], order


def finish(call: Call, y: Tensor, order: Order) -> None:
    """Declares the result ``y`` with all axes of the order: a tensor may lack some, and has one if there are none."""
    shape = (1,) * (len(order) - len(y.shape)) + y.shape if order else ()
    call.finish(call.program.reshape(y, shape, f"{call.name}/full"), order)


def broadcast(call: Call, code: str, tensors: Sequence[Tensor], dtype: DType | None = None) -> Tensor:
    """One operator on tensors that broadcast with each other."""
    shape = np.broadcast_shapes(*(t.shape for t in tensors))
    return call.program.emit(code, tensors, shape, call.name, dtype=dtype)


def _raised(call: Call, index: int, rank: int, kinds: str) -> Value:
    """An activation with axes of size one in front, up to ``rank``."""
    value = call.value(index, kinds=kinds)
    missing = rank - len(value.order)
    if not missing:
        return value
    return reshape(call.program, value, (1,) * missing + value.shape, f"{value.tensor.name}/rank{rank}")


def _common_order(values: list[Value], rank: int) -> Order:
    """The common order that moves the fewest values: NHWC if a value has this order, else that of the largest value."""
    if rank == 4 and any(free(value, NHWC) for value in values):
        return NHWC
    return max(values, key=lambda value: np.prod(value.shape)).order
