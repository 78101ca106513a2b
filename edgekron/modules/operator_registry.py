"""What the translators of operators share: their table, and the view that a translator has of a node of a hub.

A translator takes a node as an ``OperatorCall`` and gives a function of the node's tensor inputs. Attributes are read
when the translator runs. Shapes, axes and pads that are inputs may be constant or computed: a ``reader`` gives their
values when the function runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgekron.errors import UserError

#: Takes the tensors of a node's inputs, None where one is left out, and gives its output or outputs.
Function = Callable[..., Any]
Translator = Callable[["OperatorCall"], Function]

OPERATORS: dict[str, Translator] = {}

#: Gives the values of an input from the tensors of all inputs; None where the input is left out.
Reader = Callable[[Sequence[Tensor | None]], list[int] | None]

#: Types of values, by their number in the standard.
TYPES = {
    ir.DataType.FLOAT.value: torch.float32,
    ir.DataType.DOUBLE.value: torch.float64,
    ir.DataType.FLOAT16.value: torch.float16,
    ir.DataType.INT64.value: torch.int64,
    ir.DataType.INT32.value: torch.int32,
    ir.DataType.UINT8.value: torch.uint8,
    ir.DataType.INT8.value: torch.int8,
    ir.DataType.BOOL.value: torch.bool,
}


def translates(*names: str) -> Callable[[Translator], Translator]:
    """Enters a translator for operators of the standard."""

    def enter(translator: Translator) -> Translator:
        OPERATORS.update(dict.fromkeys(names, translator))
        return translator

    return enter


class OperatorCall:
    """A node whose operator is to be translated."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node

    @property
    def operator(self) -> str:
        """The operator's name."""
        return str(self.node.op_type)

    @property
    def rank(self) -> int:
        """How many axes the first input has; refuses where that is not known."""
        shape = self.node.inputs[0].shape if self.node.inputs[0] is not None else None
        if shape is None:
            self.refuse("an input of unknown shape")
        return len(shape)

    def given(self, index: int) -> bool:
        """Whether input ``index`` is there."""
        return len(self.node.inputs) > index and self.node.inputs[index] is not None

    def constant(self, index: int) -> np.ndarray | None:
        """The value of a constant input, None for one that is left out; refuses one that is computed."""
        if not self.given(index):
            return None
        value = self.node.inputs[index]
        if value is None or value.const_value is None:
            self.refuse(f"a computed input {index}")
        return value.const_value.numpy()

    def reader(self, index: int) -> Reader:
        """Gives the integers of input ``index``: a constant's now and for good, those of a computed input each time."""
        value = self.node.inputs[index] if self.given(index) else None
        if value is None or value.const_value is not None:
            known = self.integers(index)
            return lambda inputs: known
        return lambda inputs: None if (given := inputs[index]) is None else [int(n) for n in given.reshape(-1).tolist()]

    def integers(self, index: int) -> list[int] | None:
        """The values of a constant input as a list of integers."""
        array = self.constant(index)
        return None if array is None else [int(n) for n in array.reshape(-1)]

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        return self.node.attributes.get_int(name, default)

    def number(self, name: str, default: float) -> float:
        """An attribute."""
        return self.node.attributes.get_float(name, default)

    def text(self, name: str, default: str) -> str:
        """An attribute."""
        return self.node.attributes.get_string(name, default)

    def optional(self, name: str) -> int | None:
        """An attribute that may be left out."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else attribute.as_int()

    def tensor(self, name: str) -> np.ndarray | None:
        """An attribute, None where it is left out."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else attribute.as_tensor().numpy()

    def list(self, name: str, default: list[int]) -> list[int]:
        """An attribute."""
        return list(self.node.attributes.get_ints(name, tuple(default)))

    def refuse(self, what: str) -> NoReturn:
        """Raises ``UserError``: the node cannot be trained."""
        name = self.node.name or self.node.outputs[0].name
        raise UserError(
            f"node {name} is {self.operator} with {what}, which cannot be trained from a graph; train the torch module "
            "instead (edgekron.modules.factorize_module)."
        )


def translate(node: ir.Node) -> Function:
    """The function of a node. Raises ``UserError`` for an operator, or a use of it, that has no translation."""
    call = OperatorCall(node)
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        name = node.name or node.outputs[0].name
        raise UserError(
            f"node {name} is {node.op_type}, which cannot be trained from a graph; train the torch module instead "
            "(edgekron.modules.factorize_module)."
        )
    return OPERATORS[node.op_type](call)
