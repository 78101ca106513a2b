"""How many operators of each kind a model file holds, from its bytes alone.

ONNX is read as protobuf's wire format (a board has no ``onnx`` package): nodes of the graph and of the graphs inside
``If``, ``Loop`` and ``Scan``; a call of a function counts under the function's name, its body does not. TFLite is
read with LiteRT's own schema, all subgraphs. A kind is named as the file does: ``Conv`` in ONNX, ``CONV_2D`` in TFLite,
a custom one by its own name.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edgekron.runtimes.agent.errors import RuntimeFailure

#: Field numbers of ONNX's messages.
_MODEL_GRAPH, _GRAPH_NODE, _NODE_TYPE, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 7, 1, 4, 5, 6, 11
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def count_operators(path: str | Path) -> Counter[str]:
    """The number of operators by kind; ``RuntimeFailure`` for a file that is neither, or damaged."""
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RuntimeFailure(f"{path} cannot be read ({error.strerror}); check the path.") from None
    suffix = file.suffix.lower()
    if suffix == ".onnx":
        try:
            return Counter(_onnx_nodes(memoryview(data)))
        except (IndexError, ValueError, UnicodeDecodeError):
            raise RuntimeFailure(f"{path} is not an ONNX file, or is damaged; export it again.") from None
    if suffix == ".tflite":
        return _tflite(file, data)
    raise RuntimeFailure(f"{path} is neither an .onnx nor a .tflite file; its operators cannot be counted.")


def _onnx_nodes(model: memoryview) -> Iterator[str]:
    for field, graph in _messages(model):
        if field == _MODEL_GRAPH:
            yield from _graph_nodes(graph)


def _graph_nodes(graph: memoryview) -> Iterator[str]:
    for field, node in _messages(graph):
        if field != _GRAPH_NODE:
            continue
        for part, value in _messages(node):
            if part == _NODE_TYPE:
                yield bytes(value).decode()
            elif part == _NODE_ATTRIBUTE:
                for kind, inner in _messages(value):
                    if kind in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        yield from _graph_nodes(inner)


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length: (field number, content)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is longer than its message")
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError("no such wire type")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _tflite(file: Path, data: bytes) -> Counter[str]:
    try:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise RuntimeFailure(
            f"the operators of {file} cannot be counted ({error}); run `pip install ai-edge-litert` on this machine."
        ) from None
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    kinds: Counter[str] = Counter()
    try:
        model = schema.Model.GetRootAs(data)
        for index in range(model.SubgraphsLength()):
            graph = model.Subgraphs(index)
            for position in range(graph.OperatorsLength()):
                code = model.OperatorCodes(graph.Operators(position).OpcodeIndex())
                # The older field holds one byte; a writer of either kind fills at least one of the two.
                builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
                custom = code.CustomCode()
                kinds[custom.decode() if custom else names.get(builtin, str(builtin))] += 1
    except Exception as error:  # noqa: BLE001 - the generated reader raises whatever a wrong offset leads to
        raise RuntimeFailure(f"{file} is not a TFLite file, or is damaged ({error}); export it again.") from None
    return kinds
