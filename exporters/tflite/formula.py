"""Formulas of elementwise operators, for ONNX operators that TFLite has no operator for.

    f = Formula(call)
    y = f("MUL", x, f("LOGISTIC", x))

Numbers among the operands become constants.

The values within some formulas have ranges far wider than those of both ends, or errors that grow: an exponential, a
quotient. ``Formula(call, floats=True)`` names its values so that the quantizer leaves their operators in float32; the
runtime then converts at both ends of the formula alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .program import DType, Option, Tensor
from .translation import Call

#: What the names of values have in them whose operators stay in float32.
FLOATS = "/float32/"


class Formula:
    """Writes the operators of one node's formula, named after the node."""

    def __init__(self, call: Call, *, floats: bool = False) -> None:
        self._call, self._within = call, FLOATS if floats else "/"

    def __call__(self, code: str, *operands: Tensor | float, dtype: DType | None = None, **options: Option) -> Tensor:
        """One operator on operands that broadcast; the result is named after the node and the operator."""
        name = f"{self._call.name}{self._within}{code.lower()}"
        rank = max(1, *(len(x.shape) for x in operands if isinstance(x, Tensor)))
        tensors = [x if isinstance(x, Tensor) else self.number(x, rank) for x in operands]
        shape = np.broadcast_shapes(*(t.shape for t in tensors))
        return self._call.program.emit(code, tensors, shape, name, dtype=dtype, **options)

    def number(self, value: float, rank: int = 1) -> Tensor:
        """A float32 constant of ``rank`` axes that broadcasts with everything of as many axes or more."""
        return self._call.program.constant(f"{self._call.name}/number", np.full((1,) * rank, value, np.float32))

    def view(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The same values in another shape."""
        return self._call.program.reshape(x, shape, f"{self._call.name}/view")

    def reduce(self, code: str, x: Tensor, axes: list[int], *, keep: bool = True) -> Tensor:
        """A reduction over axes of the tensor."""
        name = f"{self._call.name}/{code.lower()}"
        places = sorted(axes)
        shape = [1 if i in places else n for i, n in enumerate(x.shape)]
        if not keep:
            shape = [n for i, n in enumerate(x.shape) if i not in places]
        inputs = [x, self._call.program.integers(f"{name}/axes", places)]
        return self._call.program.emit(code, inputs, shape, name, keepDims=keep)
