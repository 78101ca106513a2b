"""The subject of a tuning: a factorized layer and its place in the network, without the values of the factors.

Speed depends on the structure, the geometry, the size of the image and the neighbours of the layer, not on the numbers
in the factors. So a plan can be tuned before anything is fitted, and equal layers are measured once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgekron.algebra import FactorNetwork, Geometry, Pair
from edgekron.algebra.lowering import WHOLE
from edgekron.graph import Factorized
from edgekron.planning.lines import factor_network

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer
    from edgekron.graph.factorized import Kind
    from edgekron.planning.plan import CompressionPlan

#: Activations that are measured together with the layer in front of them, because runtimes fuse some.
ACTIVATIONS = ("Relu", "Clip", "HardSwish", "Sigmoid", "Tanh")


@dataclass(frozen=True)
class Subject:
    """A layer to tune: ``size`` is (h, w) of its input, ``order`` and ``forms`` are its present ones.

    ``first`` says that the layer reads the network's input; ``added``, that the layer's result is added to a map as
    large as its input, as in a residual block; ``activation`` is the operator of ``ACTIVATIONS`` behind the layer, or
    "".
    """

    name: str
    kind: Kind
    network: FactorNetwork
    geometry: Geometry
    size: Pair
    order: tuple[int, ...]
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bias: bool = True
    first: bool = False
    added: bool = False
    activation: str = ""

    @property
    def output_size(self) -> Pair:
        """(h, w) of the layer's output."""
        return self.geometry.output_size(self.size, self.network.kernel_shape[2:])

    def key(self) -> dict[str, object]:
        """Everything that decides the layer's speed, as plain data; the name and the present forms do not."""
        return {
            "kind": self.kind,
            "factors": self.network.factors,
            "sizes": dict(self.network.sizes),
            "geometry": asdict(self.geometry),
            "size": list(self.size),
            "bias": self.bias,
            "first": self.first,
            "added": self.added,
            "activation": self.activation,
        }

    def factorized(self, name: str, deviation: float) -> Factorized:
        """A layer of random factors whose kernel has about the standard deviation ``deviation``."""
        network, rng = self.network, np.random.default_rng(0)
        count = len(network.axes)
        terms = math.prod(n for axis, n in network.sizes.items() if axis[0] == "r")
        each = (deviation / math.sqrt(terms)) ** (1 / count)
        tensors = tuple(
            each * rng.standard_normal(network.factor_shape(i), dtype=np.float32).astype(np.float32)
            for i in range(count)
        )
        bias = rng.standard_normal(network.kernel_shape[0], dtype=np.float32) if self.bias else None
        return Factorized(name, self.kind, network, tensors, bias, self.order, self.geometry, dict(self.forms))


def subjects_of_plan(hub: Hub, plan: CompressionPlan, *, fitted: bool) -> list[Subject]:
    """The layers of the dense ``hub`` that ``plan`` factorizes to save time.

    ``fitted`` says that the layers will be fitted to data, which gives each of them a bias. Layers whose factors are
    only stored, and multiplied out when the file is loaded, are left out. Raises ``UserError`` for a plan that does not
    fit the network.
    """
    found = []
    plan.check_layers(layer.name for layer in hub.layers())
    for layer in hub.layers():
        line = plan.layers.get(layer.name)
        if line is None or line.method == "dense" or _stored_only(line.forms):
            continue
        network = factor_network(layer, line)
        order = line.order or network.best_order(layer.input_size, layer.geometry)
        bias = fitted or layer.bias is not None
        found.append(_subject(hub, layer, network, order, line.forms, bias=bias))
    return found


def subjects_of_hub(hub: Hub) -> list[Subject]:
    """The factorized layers of ``hub``, except layers whose factors are only stored."""
    return [
        _subject(hub, layer, one.network, one.order, one.forms, bias=one.bias is not None)
        for layer in hub.layers()
        if (one := layer.factorized) is not None and not _stored_only(one.forms)
    ]


def _stored_only(forms: Mapping[str, tuple[str, ...]]) -> bool:
    return ("expand",) in forms.values()


def _subject(
    hub: Hub,
    layer: Layer,
    network: FactorNetwork,
    order: tuple[int, ...],
    forms: Mapping[str, tuple[str, ...]],
    *,
    bias: bool,
) -> Subject:
    added, activation = _behind(layer, network)
    return Subject(
        name=layer.name,
        kind=layer.kind,
        network=network,
        geometry=layer.geometry,
        size=layer.input_size,
        order=order,
        forms={target: chosen for target, chosen in forms.items() if chosen[0] not in WHOLE},
        bias=bias,
        first=layer.input == hub.input_name,
        added=added,
        activation=activation,
    )


def _behind(layer: Layer, network: FactorNetwork) -> tuple[bool, str]:
    """(whether a map of the input's size is added to the layer's result, the activation behind the layer)."""
    outputs, inputs, _, _ = network.kernel_shape
    square = (layer.output_size, outputs) == (layer.input_size, inputs * network.total("g"))
    value, added = layer.node.outputs[0], False
    for _ in range(2):
        readers = [user for user, _ in value.uses()]
        if len(readers) != 1 or value.is_graph_output():
            break
        if readers[0].op_type in ACTIVATIONS:
            return added, readers[0].op_type
        if readers[0].op_type != "Add" or added or not square or layer.kind != "conv":
            break
        added, value = True, readers[0].outputs[0]
    return added, ""
