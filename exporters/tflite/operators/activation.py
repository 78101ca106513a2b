"""Activations of one input."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import arrange_constant
from edgekron.exporters.tflite.operands import aligned, finish
from edgekron.exporters.tflite.program import Option
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call

_SAME_MEANING = {
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "HardSwish": "HARD_SWISH",
    "Abs": "ABS",
    "Neg": "NEG",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Floor": "FLOOR",
    "Ceil": "CEIL",
    "Round": "ROUND",
    "Sign": "SIGN",
    "Sin": "SIN",
    "Cos": "COS",
}

_CLIPS = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


@translates(*_SAME_MEANING)
def elementwise(call: Call) -> None:
    """The operator of the same meaning in TFLite."""
    _map(call, _SAME_MEANING[call.node.op_type])


@translates("LeakyRelu")
def leaky_relu(call: Call) -> None:
    """The input, or alpha times the input below zero."""
    _map(call, "LEAKY_RELU", alpha=float(call.attribute("alpha", 0.01)))


@translates("Gelu")
def gelu(call: Call) -> None:
    """The input x times the normal distribution's integral up to x, exact or by tanh."""
    _map(call, "GELU", approximate=call.attribute("approximate", "none") == "tanh")


@translates("PRelu")
def prelu(call: Call) -> None:
    """The input, or the input times a slope below zero."""
    x, slope = call.value(), call.array(1)
    if slope is not None:
        slope = arrange_constant(call.numbers(1, "slope"), x.order)
    # The runtimes take one slope per value of an image, or per channel: never with a batch, or computed.
    if slope is None or slope.ndim >= len(x.order):
        f, ((tensor, computed), order) = Formula(call), aligned(call)
        y = f("ADD", f("RELU", tensor), f("MUL", f("MINIMUM", tensor, 0.0), computed))
        finish(call, y, order)
        return
    wide = slope.reshape((1,) * (len(x.order) - 1 - slope.ndim) + slope.shape)
    name = call.input_name(1)
    y = call.program.emit("PRELU", [x.tensor, call.program.constant(name, wide)], x.tensor.shape, call.name)
    call.finish(y, x.order)


@translates("Clip")
def clip(call: Call) -> None:
    """A named activation if one has the same bounds, else MAXIMUM and MINIMUM."""
    lowest, highest = (_bound(call, index) for index in (1, 2))
    if (lowest, highest) in _CLIPS:
        _map(call, _CLIPS[lowest, highest])
        return
    x = call.value()
    y = x.tensor
    for code, bound, name in (("MAXIMUM", lowest, "lowest"), ("MINIMUM", highest, "highest")):
        if np.isfinite(bound):
            # The quantizer gives the bound the scale of the value, and expects the value's axes as well.
            number = np.full((1,) * len(y.shape), bound, np.float32)
            constant = call.program.constant(f"{call.name}/{name}", number)
            y = call.program.emit(code, [y, constant], y.shape, call.name)
    call.finish(y, x.order)


def _bound(call: Call, index: int) -> float:
    name, none = ("min", -np.inf) if index == 1 else ("max", np.inf)
    bound = float(call.constant(index, "bounds").reshape(())) if call.has(index) else float(call.attribute(name, none))
    return none if abs(bound) >= np.finfo(np.float32).max and bound * none > 0 else bound


@translates("HardSigmoid")
def hard_sigmoid(call: Call) -> None:
    """clip(alpha x + beta, 0, 1) = relu6(6 alpha x + 6 beta) / 6."""
    x, f = call.value(), Formula(call)
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    scaled = x.tensor if abs(6 * alpha - 1) <= 1e-6 else f("MUL", x.tensor, 6 * alpha)
    six = f("ADD", scaled, 6 * beta, fusedActivationFunction="RELU6")
    call.finish(f("MUL", six, 1 / 6), x.order)


def _map(call: Call, code: str, **options: Option) -> None:
    x = call.value()
    y = call.program.emit(code, [x.tensor], x.tensor.shape, call.name, dtype=x.tensor.dtype, **options)
    call.finish(y, x.order)
