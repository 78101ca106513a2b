"""Outputs that are put together from several values, such as the boxes and the scores of a detector.

A *move* is an operator that computes nothing: each value of its output is a value of its input. Followed backwards
through moves, an output ends at its *sources*, the values that were computed. An output with two or more of them is a
*join*: its sources can differ in unit and range, so that neither one error nor one range suits them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from .values import constant

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Operators that only move values; of some, only with a constant second input.
_MOVES = {
    "Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
#: Operators that keep each value in its place.
ELEMENTWISE = {
    "Abs", "Add", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh",
    "Where",
}  # fmt: skip
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Join:
    """An output that has two or more ``sources``, and the ``moves`` between the sources and the output."""

    output: ir.Value
    moves: tuple[ir.Node, ...]
    sources: tuple[ir.Value, ...]


def joins(graph: ir.Graph) -> list[Join]:
    """The outputs of ``graph`` that are joined from two or more computed values, in the order of the outputs."""
    found = (_walk(output) for output in graph.outputs)
    return [join for join in found if len(join.sources) > 1]


def joining_moves(graph: ir.Graph) -> list[ir.Node]:
    """The moves behind which the parts of joined outputs lie, each of them a value of its own range.

    These are the moves of the outputs' joins, and of joins before: a detector may join boxes and scores, part them
    again, decode each value on its own, and join them a second time. Layers end the search.
    """
    moves: dict[ir.Node, None] = {}
    seen: set[ir.Value] = set()
    pending = [join.output for join in joins(graph)]
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        join = _walk(value)
        if len(join.sources) > 1:
            moves |= dict.fromkeys(join.moves)
        for source in join.sources:
            node = source.producer()
            if node is not None and node.op_type in ELEMENTWISE:
                pending += [given for given in node.inputs if given is not None and given.const_value is None]
    return list(moves)


def is_move(node: ir.Node) -> bool:
    """Whether a node only moves values."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _MOVES:
        return False
    if node.op_type == "Cast":
        return all(value is not None and value.dtype in _FLOATS for value in (node.inputs[0], node.outputs[0]))
    return node.op_type != "Gather" or constant(node.inputs[1]) is not None


def moved_by(node: ir.Node) -> Sequence[ir.Value]:
    """The inputs whose values a move hands on: all those of a Concat, else the first."""
    given = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return [value for value in given if value is not None]


def readable(value: ir.Value) -> str:
    """A value's name without what exporters and quantizers put around it: "/head/Mul_output_0" is "head/Mul"."""
    return str(value.name).removesuffix("_DequantizeLinear_Output").removeprefix("/").removesuffix("_output_0")


def _walk(output: ir.Value) -> Join:
    """What ``output`` is put together from; constants are no sources."""
    moves: dict[ir.Node, None] = {}
    sources: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    pending = [output]
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is not None and is_move(node):
            moves[node] = None
            pending += reversed(moved_by(node))
        elif value.const_value is None:
            sources[value] = None
    return Join(output, tuple(moves), tuple(sources))
