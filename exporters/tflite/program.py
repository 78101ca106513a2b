"""A TFLite program in memory: tensors and operators in the order in which they run.

A program knows operators by name and tensors by shape; it knows nothing of ONNX or of the file format. Two rules keep
a program small from the start: a reshape to the same shape is no operator, and a reshape of a reshape is one operator.
``prune`` removes operators that nothing reads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
DType = np.dtype[np.generic]
#: The value of a field of an operator's options table.
Option = str | float | bool | Sequence[int]

FLOAT, INTEGER, BOOLEAN = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.bool_)
#: Types that inputs of a network may have besides: bytes of images and tokens.
BYTE, SIGNED_BYTE, SHORT, LONG = np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int64)
_TYPE_NAMES: dict[DType, str] = {
    FLOAT: "FLOAT32",
    INTEGER: "INT32",
    BOOLEAN: "BOOL",
    BYTE: "UINT8",
    SIGNED_BYTE: "INT8",
    SHORT: "INT16",
    LONG: "INT64",
}


def type_name(dtype: DType) -> str:
    """The schema's name of a tensor's type."""
    return _TYPE_NAMES[dtype]


@dataclass(eq=False)
class Tensor:
    """A value of a program: a constant with ``data``, which gives its type, or a value that one operator writes, or an
    input of the program.
    """

    name: str
    shape: Shape
    data: np.ndarray | None = None
    dtype: DType = FLOAT

    def __post_init__(self) -> None:
        if self.data is not None:
            self.dtype = self.data.dtype


@dataclass(eq=False)
class Operator:
    """One builtin operator; ``options`` are the fields of its options table that differ from the defaults."""

    code: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(eq=False)
class Program:
    """Operators in running order, with named inputs and outputs.

    ``axes`` has [axes in the file, axes in the source] of inputs and outputs whose axes the file has to state.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    axes: dict[str, list[str]] = field(default_factory=dict)
    _writers: dict[Tensor, Operator] = field(default_factory=dict)

    def emit(
        self,
        code: str,
        inputs: Sequence[Tensor],
        shape: Sequence[int],
        name: str,
        *,
        dtype: DType | None = None,
        **options: Option,
    ) -> Tensor:
        """Appends an operator with one output of ``shape`` and returns the output.

        The output has the first input's type unless ``dtype`` is given; ``options`` are those of ``Operator``.
        """
        output = Tensor(name, tuple(int(n) for n in shape), dtype=dtype or inputs[0].dtype)
        self.append(code, inputs, [output], **options)
        return output

    def append(self, code: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], **options: Option) -> None:
        """Appends an operator that writes new tensors."""
        operator = Operator(code, list(inputs), list(outputs), options)
        self.operators.append(operator)
        self._writers.update(dict.fromkeys(outputs, operator))

    def writer(self, tensor: Tensor) -> Operator | None:
        """The operator that writes a tensor; None for inputs and constants."""
        return self._writers.get(tensor)

    def write_to(self, operator: Operator, tensor: Tensor) -> None:
        """Makes ``tensor`` the output of an operator, in place of the operator's present output."""
        operator.outputs = [tensor]
        self._writers[tensor] = operator

    def constant(self, name: str, data: np.ndarray) -> Tensor:
        """A constant tensor: float32, int32 (shapes and axes among them) or bool."""
        return Tensor(name, tuple(data.shape), np.ascontiguousarray(data))

    def integers(self, name: str, values: npt.ArrayLike) -> Tensor:
        """A constant int32 tensor."""
        return self.constant(name, np.asarray(values, dtype=np.int32))

    def reshape(self, x: Tensor, shape: Sequence[int], name: str) -> Tensor:
        """``x`` in another shape with the same number of values."""
        wanted = tuple(int(n) for n in shape)
        if math.prod(wanted) != math.prod(x.shape):
            raise AssertionError(f"{x.name}: {x.shape} has no view {wanted}")
        before = self.writer(x)
        if before is not None and before.code == "RESHAPE":
            x = before.inputs[0]
        if x.shape == wanted:
            return x
        return self.emit("RESHAPE", [x, self.integers(f"{name}/shape", wanted)], wanted, name, newShape=list(wanted))

    def transpose(self, x: Tensor, order: Sequence[int], name: str) -> Tensor:
        """Axis i of the result is axis ``order[i]`` of ``x``; a reshape if only axes of size one move.

        More than four axes are written as fewer axes if some stay together.
        """
        shape = tuple(x.shape[a] for a in order)
        moved = [a for a in order if x.shape[a] > 1]
        if moved == sorted(moved):
            return self.reshape(x, shape, name)
        if len(shape) > 4:
            large = sorted(moved)
            sizes, fewer = merged([x.shape[a] for a in large], [large.index(a) for a in moved])
            y = self.reshape(x, sizes, f"{name}/together")
            result = [sizes[a] for a in fewer]
            y = self.emit("TRANSPOSE", [y, self.integers(f"{name}/order", fewer)], result, f"{name}/moved")
            return self.reshape(y, shape, name)
        return self.emit("TRANSPOSE", [x, self.integers(f"{name}/order", order)], shape, name)

    def pad(self, x: Tensor, padding: Sequence[tuple[int, int]], name: str, value: float = 0.0) -> Tensor:
        """``x`` with (before, after) copies of ``value`` along each axis."""
        if not any(sum(pair) for pair in padding):
            return x
        shape = [n + sum(pair) for n, pair in zip(x.shape, padding, strict=True)]
        inputs = [x, self.integers(f"{name}/padding", padding)]
        if value == 0.0:
            return self.emit("PAD", inputs, shape, name)
        inputs.append(self.constant(f"{name}/value", np.array([value], np.float32)))
        return self.emit("PADV2", inputs, shape, name)

    def readers(self) -> Counter[Tensor]:
        """How often each tensor is read, by operators and as an output of the program."""
        count = Counter(t for operator in self.operators for t in operator.inputs)
        count.update(self.outputs.values())
        return count

    def prune(self) -> None:
        """Removes operators that nothing reads."""
        needed = set(self.outputs.values())
        kept = []
        for operator in reversed(self.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.inputs)
                kept.append(operator)
        self.operators = kept[::-1]


def merged(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """The same permutation with every run of axes that stay neighbours merged to one axis: (sizes, order)."""
    runs: list[list[int]] = []
    for axis in order:
        if runs and axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ascending = sorted(runs)
    return [math.prod(shape[a] for a in run) for run in ascending], [ascending.index(run) for run in runs]
