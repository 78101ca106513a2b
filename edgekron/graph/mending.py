"""Mends in a file what ONNX Runtime accepts and the ONNX checker does not: node order and old format versions.

Node order: some tools append nodes behind their readers. Each graph of the file is sorted, as little as needed.

Format version: before version 4 every initializer had to be listed among the inputs of the graph. Such a file is read
as one of a newer version, in which an initializer is a constant.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx

#: The first version of the format in which an initializer need not be listed, and the one that older files become.
_FIRST, _FORMAT = 4, 8


def mend(proto: onnx.ModelProto) -> bool:
    """Mends ``proto`` in place; whether anything was changed."""
    changed = False
    for graph in _graphs(proto.graph):
        order = _order(graph)
        if order != sorted(order):
            nodes = [onnx.NodeProto() for _ in order]
            for copy, index in zip(nodes, order, strict=True):
                copy.CopyFrom(graph.node[index])
            del graph.node[:]
            graph.node.extend(nodes)
            changed = True
    if 0 < proto.ir_version < _FIRST:
        _drop_listed_initializers(proto.graph)
        proto.ir_version = _FORMAT
        changed = True
    return changed


def without_outside_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for the checker, in which initializers that lie in other files are inputs of their type and shape."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    inside = [tensor for tensor in copy.graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    listed = {value.name for value in copy.graph.input}
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in copy.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL and tensor.name not in listed
    )
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in inside]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def _drop_listed_initializers(graph: onnx.GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.input if v.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those within its nodes, the innermost first."""
    for node in graph.node:
        for inner in _bodies(node):
            yield from _graphs(inner)
    yield graph


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        body
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else list(attribute.graphs))
    ]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that the node reads, in its bodies too."""
    found = set(node.input)
    for body in _bodies(node):
        for inner in body.node:
            found |= _reads(inner)
        found |= {value.name for value in body.output}
    return found


def _order(graph: onnx.GraphProto) -> list[int]:
    """The places of the nodes, each behind the nodes that it reads, and otherwise as before; unchanged for a circle."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits: list[set[int]] = []
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(graph.node):
        before = {makers[name] for name in _reads(node) if name in makers and makers[name] != index}
        waits.append(before)
        for maker in before:
            readers.setdefault(maker, []).append(index)
    ready = [index for index, before in enumerate(waits) if not before]
    heapq.heapify(ready)
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    # A circle is for the checker to refuse.
    return order if len(order) == len(graph.node) else list(range(len(graph.node)))
