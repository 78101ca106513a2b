"""The work of an exported file, layer by layer: the multiply-accumulates executed, and the time that the nodes take.

A factorized layer can be exported in several forms. The forms give the same numbers by different amounts of work:
``mix`` multiplies by zeros, ``dense`` by the expanded kernel. ``executed_macs`` counts the work of the chosen forms.

ONNX Runtime fuses and renames nodes before running a file. ``by_layer`` finds the layer behind each node of a profile:
a node is looked up by its name or by the name of its result; a fused node carries the name of the last node swallowed,
and the way back from that node leads to the layer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgekron.algebra import steps
from edgekron.graph.cost import cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx

    from edgekron.graph import Hub, Layer
    from edgekron.runtimes.agent.profile import NodeTime

#: The key in ``by_layer`` of all nodes that belong to no layer: pooling, additions, changes of the memory layout.
OTHER = ""

#: Operators that do the work of a layer, ONNX Runtime's own among them.
_WORK = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
_DECORATION = re.compile(r"^fused |_nchwc$|_token_\d+$")


def executed_macs(hub: Hub, target: str) -> dict[str, int]:
    """Multiply-accumulates of each layer for one image, as a file of ``target`` ("onnx" or "tflite") executes them.

    Raises ``StructureError`` for a form that is not exact for its stage.
    """
    return {
        layer.name: cost(layer).macs
        if layer.factorized is None
        else steps.executed_macs(layer.factorized.steps(target), layer.input_size)
        for layer in hub.layers()
    }


def by_layer(model: onnx.ModelProto, layers: Sequence[Layer], times: Iterable[NodeTime]) -> dict[str, float]:
    """Seconds of each layer, and of everything else under ``OTHER``, from a profile of the exported ``model``.

    An activation that the runtime fused into a layer counts as part of that layer.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    named = {node.name: node for node in model.graph.node} | made
    owner = _owners(made, layers)
    times = list(times)
    reported = {id(node) for time in times if (node := named.get(_plain(time.name))) is not None}
    seconds = {layer.name: 0.0 for layer in layers} | {OTHER: 0.0}
    for time in times:
        node = named.get(_plain(time.name))
        layer = owner.get(id(node))
        if layer is None and node is not None and time.operator in _WORK:
            layer = _swallowed(node, made, owner, reported)
        seconds[layer or OTHER] += time.seconds
    return seconds


def _plain(name: str) -> str:
    return _DECORATION.sub("", name)


def _owners(made: Mapping[str, onnx.NodeProto], layers: Sequence[Layer]) -> dict[int, str]:
    """The layer of each node between a layer's input and its output."""
    owner: dict[int, str] = {}
    for layer in layers:
        waiting = [layer.output]
        while waiting:
            value = waiting.pop()
            node = made.get(value)
            if value != layer.input and node is not None and id(node) not in owner:
                owner[id(node)] = layer.name
                waiting += node.input
    return owner


def _swallowed(
    node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto], owner: Mapping[int, str], reported: set[int]
) -> str | None:
    """The nearest layer behind ``node`` whose own last node the runtime no longer reports."""
    waiting, seen = [node], {id(node)}
    while waiting:
        here = waiting.pop(0)
        if id(here) in owner:
            if id(here) not in reported:
                return owner[id(here)]
            continue
        behind = [made[name] for name in here.input if name in made]
        waiting += [other for other in behind if id(other) not in seen]
        seen |= {id(other) for other in behind}
    return None
