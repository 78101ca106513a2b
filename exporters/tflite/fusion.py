"""Fewer operators for the same values: biases and activations go into the arithmetic before them.

    bias         CONV_2D + ADD of a vector        -> CONV_2D with the sum of both as its bias
    activation   arithmetic + RELU/RELU6/N1_TO_1  -> arithmetic with a fused activation

An activation acts on single values, so that it can pass reshapes and transposes on its way to the arithmetic. Neither
fusion is made if another operator reads a value in between.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from .program import Operator, Program, Tensor

_BIASED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_ARITHMETIC = _BIASED | {"ADD", "SUB", "MUL", "DIV", "MAX_POOL_2D", "AVERAGE_POOL_2D"}
_MOVES = {"RESHAPE", "TRANSPOSE"}
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1"}


def fuse(program: Program) -> None:
    """Fuses in place. Expects a pruned program."""
    _fuse_biases(program)
    _fuse_activations(program)


def _fuse_biases(program: Program) -> None:
    readers = program.readers()
    writers = {o.outputs[0]: o for o in program.operators}
    for operator in list(program.operators):
        if operator.code != "ADD" or not any(t.data is not None for t in operator.inputs):
            continue
        vector, x = sorted(operator.inputs, key=lambda t: t.data is None)
        before = writers.get(x)
        if before is None or before.code not in _BIASED or readers[x] != 1 or _activation(before):
            continue
        channels = x.shape[-1]
        if vector.data is None or vector.data.size not in (1, channels) or vector.shape[-1:] != (vector.data.size,):
            continue
        bias = before.inputs[2]
        if bias.data is None:
            continue
        total = bias.data + np.broadcast_to(vector.data.reshape(-1), (channels,))
        before.inputs[2] = program.constant(vector.name if not bias.data.any() else bias.name, total)
        before.options["fusedActivationFunction"] = _activation(operator) or "NONE"
        _replace(program, operator, before, writers)


def _fuse_activations(program: Program) -> None:
    readers = program.readers()
    writers = {o.outputs[0]: o for o in program.operators}
    for operator in list(program.operators):
        if operator.code not in _ACTIVATIONS:
            continue
        source = _arithmetic_before(operator.inputs[0], writers, readers)
        if source is not None:
            source.options["fusedActivationFunction"] = operator.code
            _replace(program, operator, writers[operator.inputs[0]], writers)


def _arithmetic_before(x: Tensor, writers: dict[Tensor, Operator], readers: Counter[Tensor]) -> Operator | None:
    while readers[x] == 1 and (operator := writers.get(x)) is not None:
        if operator.code in _ARITHMETIC:
            return None if _activation(operator) else operator
        if operator.code not in _MOVES:
            return None
        x = operator.inputs[0]
    return None


def _activation(operator: Operator) -> str | None:
    name = str(operator.options.get("fusedActivationFunction", "NONE"))
    return None if name == "NONE" else name


def _replace(program: Program, operator: Operator, before: Operator, writers: dict[Tensor, Operator]) -> None:
    """Removes ``operator``; ``before`` writes the output of ``operator`` instead."""
    program.operators.remove(operator)
    program.write_to(before, operator.outputs[0])
    writers[operator.outputs[0]] = before
