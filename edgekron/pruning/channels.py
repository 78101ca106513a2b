"""Which channels of a graph depend on which: an algebra of indices.

The channel axis of a value is its axis 1. Each place on it carries a *unit*, a number that stands for everything that
must stay or go together. A convolution makes new units for its outputs; a product with one column for each channel
(convolution, fully connected layer) only reads the units of its inputs; every other operator carries the units of its
inputs to its outputs and may tie some of them together (an addition does), which a union-find keeps. An operator that
mixes channels in another way freezes the units that it reads, with the reason.

What has to change when units are removed is noted on the way: the axes of constants with one entry for each channel
(``ChannelAxis``), and edits of constants or attributes that state a number of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekron.graph.control_flow import reads
from edgekron.graph.layers import layer_names
from edgekron.graph.nodes import add_initializer

#: Which places of an array of units stay: [n] bool for units [n].
Alive = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ChannelAxis:
    """An axis of the constant at an input of a node, with one entry for each of ``units``.

    ``makes`` says that its entries determine the channels (an output axis, a bias, a scale); the others, such as the
    input axis of a kernel, weigh channels that were made elsewhere.
    """

    node: ir.Node
    index: int
    axis: int
    units: np.ndarray
    makes: bool


class Channels:
    """The units of every value of a graph; ``operators.trace`` fills it.

    ``layers`` holds each layer's name with the units that it reads and those of its outputs, None where they are not
    known. Its outputs are new units, ``makers`` says by what name, unless the layer is depthwise.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = layer_names(model.graph)
        self.axes: list[ChannelAxis] = []
        self.edits: list[Callable[[Alive], None]] = []
        self.layers: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = {}
        self.makers: dict[str, np.ndarray] = {}
        self._units: dict[ir.Value, np.ndarray] = {}
        self._parents: list[int] = []
        self._frozen: list[tuple[np.ndarray, str]] = []

    def values(self) -> Iterator[tuple[ir.Value, np.ndarray]]:
        """Every value whose channels are known, with its units."""
        return iter(self._units.items())

    def of(self, value: ir.Value | None) -> np.ndarray | None:
        """The units of a value; None where its channels are not known."""
        return None if value is None else self._units.get(value)

    def new(self, count: int) -> np.ndarray:
        """That many new units."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def give(self, value: ir.Value, units: np.ndarray) -> None:
        """Says that the channels of ``value`` are ``units``."""
        self._units[value] = units

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Ties the units in the same places of two arrays."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            older, newer = sorted((self._root(one), self._root(other)))
            # The older one stays, so that roots are the units of the first layer.
            self._parents[newer] = older

    def roots(self, units: np.ndarray) -> np.ndarray:
        """The same units, each by the number that all units tied to it share."""
        return np.array([self._root(unit) for unit in units.tolist()], np.int64)

    def freeze(self, units: np.ndarray, reason: str) -> None:
        """Says that ``units`` must stay: because the layer that makes them ``reason``."""
        self._frozen.append((units, reason))

    def refuse(self, node: ir.Node, reason: str) -> None:
        """Freezes all that ``node`` reads; the channels of its outputs are not known."""
        for value in reads(node):
            if (units := self.of(value)) is not None:
                self.freeze(units, f"{reason} at {self.name(node)}")

    def frozen(self) -> dict[int, str]:
        """The reason for each frozen root."""
        found: dict[int, str] = {}
        for units, reason in self._frozen:
            for root in self.roots(units).tolist():
                found.setdefault(root, reason)
        return found

    def note(self, node: ir.Node, index: int, axis: int, units: np.ndarray, *, makes: bool = True) -> None:
        """Notes an axis of a constant with one entry for each of ``units``."""
        self.axes.append(ChannelAxis(node, index, axis, units, makes))

    def name(self, node: ir.Node) -> str:
        """What messages call a node."""
        return self.names.get(node) or f"{node.name or node.outputs[0].name} ({node.op_type})"

    def replace(self, node: ir.Node, index: int, array: np.ndarray) -> None:
        """Puts a constant at an input of a node; see ``put_constant``."""
        put_constant(self.model, node, index, array)

    def _root(self, unit: int) -> int:
        parents = self._parents
        while parents[unit] != unit:
            parents[unit] = parents[parents[unit]]
            unit = parents[unit]
        return unit


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer; None for any other value."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def put_constant(model: ir.Model, node: ir.Node, index: int, array: np.ndarray, name: str = "") -> None:
    """Puts a constant at an input of a node of the main graph.

    It has the name of the one that was there, or ``name`` where there was none; a new one where others read the old.
    """
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1:
        old.const_value = ir.tensor(np.asarray(array, order="C"), name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    stem = old.name if old is not None and old.name else name or f"{node.outputs[0].name}.{index}"
    node.replace_input_with(index, add_initializer(model.graph, stem, array))
