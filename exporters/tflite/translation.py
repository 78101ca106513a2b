"""The tools of an operator's translator: the node, the node's inputs in the file, and a way to refuse.

``Translation`` is the state of one export: the program being written, and the place of every ONNX value in the program.
``Call`` is one node of the export, and the only argument of a translator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir

from edgekron.errors import UserError
from edgekron.graph.factorized import is_factorized

from .layout import Order, Value, arrange, standard
from .program import Program, Tensor

#: Kinds of values as numpy writes them: float32, integers (int32 in the file, and bytes of an input) and booleans.
FLOATS, NUMBERS, ANY = "f", "fi", "fiub"
_INT32 = np.iinfo(np.int32)


class UnsupportedError(UserError):
    """A node, or an attribute of a node, that the TFLite exporter cannot translate exactly."""


@dataclass
class Translation:
    """One export: the program so far, and the ONNX values that the program has or that are constant."""

    program: Program
    opset: int
    values: dict[ir.Value, Value] = field(default_factory=dict)
    constants: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    _arranged: dict[tuple[Value, Order], Value] = field(default_factory=dict)

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """The array of a value that does not depend on the network's input; None for any other value."""
        if value is None:
            return None
        if value not in self.constants and value.const_value is not None:
            self.constants[value] = value.const_value.numpy()
        return self.constants.get(value)

    def known(self, value: ir.Value | None) -> bool:
        """Whether a value is absent, constant or translated."""
        return value is None or value in self.values or self.constant(value) is not None

    def arranged(self, value: Value, order: Order) -> Value:
        """A value in another order; a value is moved to the same order only once."""
        key = (value, order)
        if key not in self._arranged:
            self._arranged[key] = arrange(self.program, value, order)
        return self._arranged[key]


class Call:
    """One node to translate."""

    def __init__(self, translation: Translation, node: ir.Node, layer: str) -> None:
        self.translation = translation
        self.program = translation.program
        self.node = node
        self.layer = layer
        self.name = node.outputs[0].name or layer

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """Raises ``UnsupportedError`` with the node, its layer, the reason and the user's remedy."""
        raise UnsupportedError(f"{describe(self.node, self.layer)}: {reason}; {remedy}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value, or the operator's default."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def has(self, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def input_name(self, index: int) -> str:
        """Name of an input, for the constant that is made of the input."""
        given = self.node.inputs[index]
        return (given.name if given is not None else None) or f"{self.name}/{index}"

    def array(self, index: int) -> np.ndarray | None:
        """A constant input; None for an input that is absent or not constant."""
        return self.translation.constant(self.node.inputs[index]) if self.has(index) else None

    def constant(self, index: int, what: str) -> np.ndarray:
        """A constant input, called ``what`` in the refusal of an input that depends on the network's input."""
        array = self.array(index)
        if array is None:
            self.refuse(f"its {what} is computed while the network runs", f"make the {what} a constant")
        return array

    def numbers(self, index: int, what: str) -> np.ndarray:
        """A constant float32 input."""
        array = self.constant(index, what)
        if array.dtype != np.float32:
            self.refuse(f"its {what} is {array.dtype}, not float32", "convert the network to float32")
        return array

    def vector(self, index: int, what: str, attribute: str | None = None) -> list[int] | None:
        """Integers from an input or, in older operator sets, an attribute; None if neither is given."""
        if self.has(index):
            return [int(i) for i in self.constant(index, what).ravel()]
        given = self.attribute(attribute or what)
        return None if given is None else [int(i) for i in given]

    def parameter(self, index: int, what: str, kinds: str = FLOATS) -> np.ndarray:
        """A constant input in the type that the file has for the input's kind: float32, int32 or bool."""
        array = self.constant(index, what)
        if kinds == FLOATS or array.dtype.kind not in kinds or array.dtype.kind == "f":
            return self.numbers(index, what)
        if array.dtype.kind == "i":
            if array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
                self.refuse(f"its {what} has values beyond int32", "use smaller integers")
            return array.astype(np.int32)
        return array

    def value(self, index: int = 0, order: Order | None = None, kinds: str = FLOATS) -> Value:
        """An input in the file, in ``order`` if an order is given; a constant becomes a tensor.

        Refuses an input whose kind is not among ``kinds``.
        """
        given = self.node.inputs[index]
        if given is not None and given in self.translation.values:
            value = self.translation.values[given]
            if value.tensor.dtype.kind not in kinds:
                self.refuse(f"its input {index} is {value.tensor.dtype}, not float32", "cast it to float32 before")
            return value if order is None else self.translation.arranged(value, order)
        array = self.parameter(index, f"input {index}", kinds)
        order = order or standard(array.ndim)
        return Value(self.program.constant(self.input_name(index), array.transpose(order)), order)

    def rank(self, index: int = 0) -> int:
        """Number of axes of an input."""
        array = self.array(index)
        return array.ndim if array is not None else len(self.value(index, kinds=ANY).order)

    def result(self, value: Value, index: int = 0) -> None:
        """Declares an output."""
        if 0 in value.tensor.shape:
            self.refuse(f"its result {list(value.shape)} has no values", "remove the node")
        self.translation.values[self.node.outputs[index]] = value

    def finish(self, tensor: Tensor, order: Order) -> None:
        """Declares the only output."""
        self.result(Value(tensor, order))


def used(value: ir.Value) -> bool:
    """Whether anything reads a node's output."""
    return bool(value.uses()) or value.is_graph_output()


def describe(node: ir.Node, layer: str) -> str:
    """The words for a node in an error: operator, node and layer."""
    if is_factorized(node):
        return f"factorized layer {layer!r}"
    operator = node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
    parts = [f"{operator} node {(node.name or node.outputs[0].name)!r}"]
    if layer and layer != node.name:
        parts.append(f"layer {layer!r}")
    return " of ".join(parts)


def layer_name(node: ir.Node) -> str:
    """The layer of a node: the name of its weight without ``.weight``, else the node's own."""
    for value in node.inputs[1:]:
        if value is not None and value.name and value.name.endswith(".weight"):
            return value.name.removesuffix(".weight")
    return node.name or node.outputs[0].name or node.op_type


def axes_of(axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front."""
    return [a % rank for a in axes]
