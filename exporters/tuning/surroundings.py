"""A small network around one layer, with neighbours like those of the layer in its own network.

A file of the layer alone would mislead. Between convolutions ONNX Runtime keeps maps in blocks of channels, and changes
this memory layout to the plain one at the borders of a file. A dense convolution alone would pay for two changes of
layout that a network does not have. A form that ends in the plain layout would not pay for the change that its
neighbour needs in a network. So the layer is measured between neighbours that are cheap and set the layout as real
neighbours do:

    4 channels -> 1x1 convolution, ReLU -> LAYER -> (+ the layer's input) -> its activation -> 1x1 convolution -> 4

Each neighbour costs 4 MACs for each value of the layer's input or output, a few per cent of a factorized 3x3. The
neighbours are in every file, so that they bring ratios a little nearer to 1 and never change which file is faster: the
gain is understated rather than overstated. A layer that reads the network's own input has no neighbour in front. A
fully connected layer has no neighbours, because it has no layout to set. The whole network then shows whether the
choices for single layers hold together, between neighbours that are factorized too (see ``network``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgekron.algebra import Geometry
from edgekron.graph import Hub
from edgekron.graph.nodes import OPSET, add_initializer, conv_attributes, replace_by_factorized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.algebra import Pair

    from .subject import Subject

#: Name of the layer in its network of one.
LAYER = "layer"
#: Channels at the borders.
_NARROW = 4


def one_layer(subject: Subject) -> Hub:
    """The layer, with random factors, in its surroundings; its name in the hub is ``LAYER``."""
    network = subject.network
    outputs, inputs = network.kernel_shape[0], network.kernel_shape[1] * network.total("g")
    if subject.kind == "linear":
        builder = _Builder([inputs])
        builder.layer(subject, [outputs])
        return builder.finish(subject.activation)
    size, out = list(subject.size), list(subject.output_size)
    builder = _Builder([inputs if subject.first else _NARROW, *size])
    if not subject.first:
        builder.pointwise("before", (inputs, _NARROW), size)
        builder.plain("Relu", [])
    x = builder.value
    builder.layer(subject, [outputs, *out])
    if subject.added:
        builder.plain("Add", [x])
    builder.activate(subject.activation)
    builder.pointwise("behind", (_NARROW, outputs), out)
    return builder.finish("")


class _Builder:
    """A chain of nodes and the value [N, *shape] at its end."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = list(shape)
        self.value = ir.val("input", shape=ir.Shape(["N", *shape]), type=ir.TensorType(ir.DataType.FLOAT))
        self._graph = ir.Graph([self.value], [], nodes=[], opset_imports={"": OPSET}, name=LAYER)
        self._model = ir.Model(self._graph, ir_version=10)
        self._rng = np.random.default_rng(0)

    def plain(self, operator: str, others: Sequence[ir.Value]) -> None:
        """An operator that keeps the shape."""
        self._append(ir.Node("", operator, [self.value, *others]), self.shape)

    def activate(self, operator: str) -> None:
        """The activation, if there is one; Clip is ReLU6, the usual one."""
        limits = {"low": 0.0, "high": 6.0} if operator == "Clip" else {}
        values = [add_initializer(self._graph, name, np.array(v, np.float32)) for name, v in limits.items()]
        if operator:
            self.plain(operator, values)

    def pointwise(self, name: str, channels: Pair, size: Sequence[int]) -> None:
        """A 1x1 convolution of an image of ``size``; ``channels`` are (outputs, inputs)."""
        weight = self._rng.standard_normal((*channels, 1, 1), dtype=np.float32) / np.float32(math.sqrt(channels[1]))
        values = [self.value, add_initializer(self._graph, f"{name}.weight", weight)]
        node = ir.Node("", "Conv", values, list(conv_attributes(Geometry(), 1, (1, 1)).values()), name=name)
        self._append(node, [channels[0], *size])

    def layer(self, subject: Subject, shape: Sequence[int]) -> None:
        """The layer itself, with an output of ``shape``."""
        _, inputs, h, w = subject.network.kernel_shape
        node = ir.Node("", "Identity", [self.value], name=LAYER)
        self._append(node, shape)
        replace_by_factorized(self._model, node, subject.factorized(LAYER, 1 / math.sqrt(inputs * h * w)))
        self.value = self._graph[-1].outputs[0]

    def finish(self, activation: str) -> Hub:
        """The hub; its output is the value at the end."""
        self.activate(activation)
        self._graph.outputs.append(self.value)
        return Hub(self._model)

    def _append(self, node: ir.Node, shape: Sequence[int]) -> None:
        output = node.outputs[0]
        output.name = node.name or f"{node.op_type.lower()}{len(self._graph)}"
        output.shape, output.type = ir.Shape(["N", *shape]), ir.TensorType(ir.DataType.FLOAT)
        self._graph.append(node)
        self.value, self.shape = output, list(shape)
