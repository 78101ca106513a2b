"""Reads a TFLite file back: its operators, its bytes of constants, and the faults of a file that is not well formed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekron.graph.identity import Identity
from edgekron.runtimes.agent.backends.stated_axes import axes_of

from .layout import USUAL, End
from .writer import IDENTITY_METADATA

_CODE_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}

#: Bytes of one value, of every type that EdgeKron writes.
_SIZES = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.FLOAT16: 2,
    schema.TensorType.INT64: 8,
    schema.TensorType.INT32: 4,
    schema.TensorType.INT8: 1,
    schema.TensorType.UINT8: 1,
    schema.TensorType.INT16: 2,
    schema.TensorType.BOOL: 1,
}


@dataclass(frozen=True)
class Contents:
    """The tables of one file."""

    model: schema.ModelT
    data: bytes

    @property
    def graph(self) -> schema.SubGraphT:
        """The only subgraph."""
        return self.model.subgraphs[0]

    @property
    def operators(self) -> list[str]:
        """Names of the operators in running order."""
        return [_CODE_NAMES[self.model.operatorCodes[o.opcodeIndex].builtinCode] for o in self.graph.operators]

    @property
    def histogram(self) -> Counter[str]:
        """How often each operator occurs."""
        return Counter(self.operators)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all buffers."""
        return sum(len(b.data) for b in self.model.buffers if b.data is not None)

    @property
    def inputs(self) -> dict[str, End]:
        """The axes of every input by its name."""
        return self._ends("inputs", self.graph.inputs)

    @property
    def outputs(self) -> dict[str, End]:
        """The axes of every output by its name."""
        return self._ends("outputs", self.graph.outputs)

    def _ends(self, which: str, indices: Sequence[int]) -> dict[str, End]:
        stated = axes_of(self.data).get(which, [None] * len(indices))
        names = (self.graph.tensors[index].name.decode() for index in indices)
        return {name: End(*axes) if axes else USUAL for name, axes in zip(names, stated, strict=True)}

    def problems(self) -> list[str]:
        """The faults of the file, a sentence each; none for a file that is well formed."""
        graph, found = self.graph, []
        names = [t.name for t in graph.tensors]
        found += [f"tensor name {name!r} is used twice" for name, n in Counter(names).items() if n > 1]
        if self.model.buffers[0].data is not None:
            found.append("buffer 0 is not empty")
        written = {i for i, t in enumerate(graph.tensors) if self.model.buffers[t.buffer].data is not None}
        written |= set(map(int, graph.inputs))
        for index, operator in enumerate(graph.operators):
            found += [
                f"operator {index} reads {names[i]!r} before it is written" for i in operator.inputs if i not in written
            ]
            written |= set(map(int, operator.outputs))
        found += [f"output {names[i]!r} is never written" for i in graph.outputs if i not in written]
        for tensor in graph.tensors:
            buffer = self.model.buffers[tensor.buffer].data
            if buffer is not None and len(buffer) != _SIZES[tensor.type] * int(np.prod(tensor.shape)):
                found.append(f"tensor {tensor.name!r} has a buffer of {len(buffer)} bytes")
        start = np.frombuffer(self.data, np.uint8).ctypes.data
        for index, buffer in enumerate(self.model.buffers):
            if buffer.data is None:
                continue
            offset = buffer.data.ctypes.data - start
            if offset < 0 or offset + len(buffer.data) > len(self.data):
                found.append(f"buffer {index} is not inside the file")
            elif offset % 16:
                found.append(f"buffer {index} begins at {offset}, no multiple of 16")
        return found


def read(data: bytes) -> Contents:
    """The tables of a TFLite file. Raises ``ValueError`` for data with another identifier."""
    if data[4:8] != b"TFL3":
        raise ValueError("not a TFLite file: the identifier TFL3 is missing")
    return Contents(schema.ModelT.InitFromPackedBuf(data, 0), data)


def identity_of(data: bytes) -> Identity | None:
    """The identity of the network in a file; None where the file states none.

    Raises ``ValueError`` when the file is none of TFLite.
    """
    model = read(data).model
    found = (model.buffers[m.buffer].data for m in model.metadata or [] if m.name == IDENTITY_METADATA.encode())
    text = next(found, None)
    return None if text is None else Identity.from_text(bytes(text).decode())
