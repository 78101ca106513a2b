"""Activations of one input."""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.layout import arrange_constant
from edgekron.exporters.tflite.program import Tensor
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
}

_CLIPS = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


@translates(*_SAME_MEANING)
def elementwise(call: Call) -> None:
    """Operators that mean the same in both formats."""
    _map(call, _SAME_MEANING[call.node.op_type])


@translates("LeakyRelu")
def leaky_relu(call: Call) -> None:
    """The input, or alpha times it below zero."""
    _map(call, "LEAKY_RELU", alpha=float(call.attribute("alpha", 0.01)))


@translates("Elu")
def elu(call: Call) -> None:
    """The input, or exp(x) - 1 below zero."""
    if call.attribute("alpha", 1.0) != 1.0:
        call.refuse(f"alpha is {call.attribute('alpha')}; TFLite's ELU has 1", "use alpha=1")
    _map(call, "ELU")


@translates("Gelu")
def gelu(call: Call) -> None:
    """The input times the normal distribution's integral up to x, exact or by tanh."""
    _map(call, "GELU", approximate=call.attribute("approximate", "none") == "tanh")


@translates("PRelu")
def prelu(call: Call) -> None:
    """The input, or the input times a slope of its own below zero."""
    x = call.value()
    slope = arrange_constant(call.numbers(1, "slope"), x.order)
    # The runtimes take one slope per value of an image, or per channel: never with a batch.
    if slope.ndim >= len(x.order):
        call.refuse(f"slopes of shape {slope.shape} differ within the batch", "use one slope per channel")
    wide = slope.reshape((1,) * (len(x.order) - 1 - slope.ndim) + slope.shape)
    name = call.input_name(1)
    y = call.program.emit("PRELU", [x.tensor, call.program.constant(name, wide)], x.tensor.shape, call.name)
    call.finish(y, x.order)


@translates("Clip")
def clip(call: Call) -> None:
    """A named activation where there is one for the bounds, else MAXIMUM and MINIMUM."""
    lowest, highest = (_bound(call, index) for index in (1, 2))
    if (lowest, highest) in _CLIPS:
        _map(call, _CLIPS[lowest, highest])
        return
    x = call.value()
    y = x.tensor
    for code, bound, name in (("MAXIMUM", lowest, "lowest"), ("MINIMUM", highest, "highest")):
        if np.isfinite(bound):
            constant = call.program.constant(f"{call.name}/{name}", np.array([bound], np.float32))
            y = call.program.emit(code, [y, constant], y.shape, call.name)
    call.finish(y, x.order)


def _bound(call: Call, index: int) -> float:
    name, none = ("min", -np.inf) if index == 1 else ("max", np.inf)
    bound = float(call.constant(index, name)) if call.has(index) else float(call.attribute(name, none))
    return none if abs(bound) >= np.finfo(np.float32).max and bound * none > 0 else bound


@translates("HardSigmoid")
def hard_sigmoid(call: Call) -> None:
    """clip(alpha x + beta, 0, 1) = relu6(6 alpha x + 6 beta) / 6."""
    x = call.value()
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    y, program = x.tensor, call.program

    def constant(name: str, value: float) -> list[Tensor]:
        return [program.constant(f"{call.name}/{name}", np.array([value], np.float32))]

    if abs(6 * alpha - 1) > 1e-6:
        y = program.emit("MUL", [y, *constant("slope", 6 * alpha)], y.shape, f"{call.name}/scaled")
    y = program.emit(
        "ADD",
        [y, *constant("shift", 6 * beta)],
        y.shape,
        f"{call.name}/six",
        fusedActivationFunction="RELU6",
    )
    y = program.emit("MUL", [y, *constant("sixth", 1 / 6)], y.shape, call.name)
    call.finish(y, x.order)


@translates("Softmax")
def softmax(call: Call) -> None:
    """Softmax along one axis, moved to the end of the tensor."""
    rank = call.rank()
    if rank > 4:
        call.refuse(f"an input of {rank} axes is more than the runtimes' 4", "reshape it before")
    axis = int(call.attribute("axis", -1 if call.translation.opset >= 13 else 1)) % rank
    if call.translation.opset < 13 and axis != rank - 1:
        call.refuse(
            f"before operator set 13 it runs over all axes from {axis} on", "convert the file to operator set 13"
        )
    value = call.value()
    order = value.order if value.order[-1] == axis else (*(a for a in range(rank) if a != axis), axis)
    x = call.value(0, order)
    call.finish(call.program.emit("SOFTMAX", [x.tensor], x.tensor.shape, call.name, beta=1.0), order)


def _map(call: Call, code: str, **options: object) -> None:
    x = call.value()
    call.finish(call.program.emit(code, [x.tensor], x.tensor.shape, call.name, **options), x.order)
