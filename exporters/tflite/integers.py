"""Activations in the operators whose int8 kernels are fast.

XNNPACK, which LiteRT gives a network to, has int8 kernels for sums, products and their fused activations. It has none
for some activations in float32's fastest form; each of them would run alone on LiteRT's plain kernels, and part the
network in two. In a file that is to become int8

    HARD_SWISH(x)           ->  MUL(MUL(x, ADD(x, 3) with RELU6), 1/6)
    RELU(x), RELU6(x), ...  ->  MUL(x, 1) with the activation, where no arithmetic stands before to fuse the activation
    DIV(x, constant)        ->  MUL(x, 1 / constant)

``docs/measured/activations.md`` has the times. A formula of several operators in ``FLOATS`` stays as written: the
quantizer leaves its operators in float32 (``exporters.quantize.tflite``).
"""

from __future__ import annotations

import numpy as np

from .formula import FLOATS
from .program import FLOAT, Operator, Program, Tensor

_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1"}


def for_integers(program: Program) -> None:
    """Lowers activations in place. Expects a program whose activations are fused."""
    operators, program.operators = program.operators, []
    for operator in operators:
        if operator.inputs[0].dtype != FLOAT or FLOATS in operator.outputs[0].name:
            program.operators.append(operator)
        elif operator.code == "HARD_SWISH":
            _hard_swish(program, operator)
        elif operator.code in _ACTIVATIONS:
            inputs = [operator.inputs[0], _number(program, operator, 1.0)]
            program.append("MUL", inputs, operator.outputs, fusedActivationFunction=operator.code)
        elif operator.code == "DIV" and (inverse := _inverse(program, operator.inputs[1])) is not None:
            program.append("MUL", [operator.inputs[0], inverse], operator.outputs, **operator.options)
        else:
            program.operators.append(operator)


def _hard_swish(program: Program, operator: Operator) -> None:
    """The operators of x relu6(x + 3) / 6."""
    (x,), (y,) = operator.inputs, operator.outputs
    three, sixth = (_number(program, operator, value) for value in (3.0, 1 / 6))
    gate = program.emit("ADD", [x, three], x.shape, f"{y.name}/gate", fusedActivationFunction="RELU6")
    gated = program.emit("MUL", [x, gate], x.shape, f"{y.name}/gated")
    program.append("MUL", [gated, sixth], [y])


def _number(program: Program, operator: Operator, value: float) -> Tensor:
    """A constant of as many axes as the operator's output."""
    y = operator.outputs[0]
    return program.constant(f"{y.name}/number", np.full((1,) * max(1, len(y.shape)), value, np.float32))


def _inverse(program: Program, divisor: Tensor) -> Tensor | None:
    """One over a constant; None for a value that is computed, and for numbers whose inverse is none of float32."""
    if divisor.data is None or not divisor.data.all():
        return None
    with np.errstate(over="ignore"):
        inverse = 1 / divisor.data
    return program.constant(f"{divisor.name}/inverse", inverse) if np.isfinite(inverse).all() else None
