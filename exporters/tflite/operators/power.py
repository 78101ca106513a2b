"""Pow with a constant exponent, and Reciprocal."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.layout import arrange_constant
from edgekron.exporters.tflite.operands import aligned, broadcast, finish
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call


@translates("Pow")
def power(call: Call) -> None:
    """A product for a square, SQRT for a root, POW for every other exponent."""
    exponent = call.array(1)
    if exponent is None or call.array(0) is not None or exponent.ndim > call.rank():
        tensors, order = aligned(call)
        finish(call, broadcast(call, "POW", tensors), order)
        return
    exponent, x = exponent.astype(np.float32), call.value()
    only = float(exponent.reshape(-1)[0]) if exponent.size == 1 else None
    if only == 1.0:
        call.result(x)
    elif only == 2.0:
        call.finish(call.program.emit("MUL", [x.tensor, x.tensor], x.tensor.shape, call.name), x.order)
    elif only == 0.5:
        call.finish(call.program.emit("SQRT", [x.tensor], x.tensor.shape, call.name), x.order)
    else:
        constant = call.program.constant(call.input_name(1), arrange_constant(exponent, x.order))
        shape = np.broadcast_shapes(x.tensor.shape, constant.shape)
        call.finish(call.program.emit("POW", [x.tensor, constant], shape, call.name), x.order)


@translates("Reciprocal")
def reciprocal(call: Call) -> None:
    """One over the input."""
    x = call.value()
    one = call.program.constant(f"{call.name}/one", np.ones(1, np.float32))
    call.finish(call.program.emit("DIV", [one, x.tensor], x.tensor.shape, call.name), x.order)
