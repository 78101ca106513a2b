"""BatchNormalization in evaluation mode: one multiplication and one addition per channel."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.layout import arrange_constant
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call


@translates("BatchNormalization")
def batch_normalization(call: Call) -> None:
    """Scale (x - mean) / sqrt(var + epsilon) + bias = x m + (bias - mean m) with m = scale / sqrt(var + epsilon)."""
    if call.attribute("training_mode", 0):
        call.refuse("it is in training mode", "export the network in evaluation mode (model.eval())")
    scale, bias, mean, variance = (
        call.numbers(i, what).astype(np.float64)
        for i, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    multiplier = scale / np.sqrt(variance + float(call.attribute("epsilon", 1e-5)))
    x = call.value()
    trailing = (1,) * (len(x.order) - 2)
    y = x.tensor
    for code, vector, name in (("MUL", multiplier, "scale"), ("ADD", bias - mean * multiplier, "shift")):
        array = arrange_constant(vector.astype(np.float32).reshape(-1, *trailing), x.order)
        constant = call.program.constant(f"{call.name}/{name}", array)
        y = call.program.emit(code, [y, constant], y.shape, call.name)
    call.finish(y, x.order)


@translates("Identity", "Dropout")
def identity(call: Call) -> None:
    """The same value under another name; Dropout does nothing in evaluation."""
    training = call.array(2) if call.node.op_type == "Dropout" else None
    if training is not None and bool(training):
        call.refuse("it is in training mode", "export the network in evaluation mode (model.eval())")
    if len(call.node.outputs) > 1 and call.node.outputs[1].uses():
        call.refuse("its mask is used", "export the network in evaluation mode (model.eval())")
    call.result(call.value())
