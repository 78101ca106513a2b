"""Which values of a network are compared across its versions, and the layers that make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekron.graph import Hub
from edgekron.graph.layers import layer_names

from .links import Named
from .versions import OnnxVersion

#: Values of a version by name.
Values = Mapping[str, np.ndarray]

#: Activations that a runtime may run in one kernel with the layer before.
_FUSED = ("Relu", "Clip")


@dataclass(frozen=True)
class Names:
    """``values`` mean the same in every version; ``layers`` maps those that a layer gives out to the layer, in the
    order of the network; ``titles`` maps values to words for readers, where there are better ones than their names.

    Values within a factorized layer are not among ``values``: the scale between two factors is free, and a quantized
    file has another one.
    """

    values: frozenset[str]
    layers: Mapping[str, str]
    titles: Mapping[str, str] = field(default_factory=dict)


def names_of(versions: Sequence[Named], hubs: Sequence[Hub]) -> Names:
    """The values of the hubs, in which a factorized layer is one node.

    Without a hub they are those of the first .onnx file that is not compressed: the graph of a compressed file does
    not say which of its values are within a layer.
    """
    graphs = [hub.model.graph for hub in hubs]
    if not hubs:
        files = [entry.version for entry in versions if isinstance(entry.version, OnnxVersion)]
        plain = [file for file in files if file.kind == "hub"] or [file for file in files if _original(file)]
        graphs = [ir.serde.deserialize_model(file.proto).graph for file in plain[:1]]
    values = frozenset(str(value.name) for graph in graphs for node in graph for value in node.outputs)
    layers = {str(node.outputs[0].name): name for graph in graphs for node, name in layer_names(graph).items()}
    return Names(values, layers, dict(title for hub in hubs for title in _titles(hub)))


def _original(file: OnnxVersion) -> bool:
    return file.identity is None or file.identity.original


def _titles(hub: Hub) -> Iterator[tuple[str, str]]:
    """(value, title): a layer's output by the layer, and the value behind an activation that may be fused with it."""
    for node, name in layer_names(hub.model.graph).items():
        yield str(node.outputs[0].name), name
        readers = [user for user, _ in node.outputs[0].uses()]
        if len(readers) == 1 and readers[0].op_type in _FUSED:
            yield str(readers[0].outputs[0].name), f"{name}, {readers[0].op_type}"
