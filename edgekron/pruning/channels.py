"""Which channels of a graph depend on which: an algebra of indices.

The channel axis of a value is its axis 1. Each place on this axis carries a *unit*, a number that stands for everything
that must stay or go together. A layer (convolution, fully connected) has one column for each input channel: its weights
read the units of the inputs, and make new units for the outputs. Every other operator carries the units of its inputs
to its outputs and may tie units together (an addition does); a union-find keeps the ties. An operator that mixes
channels in another way freezes the units of its inputs, with the reason.

On the way, all changes are noted that removing units takes: the axes of constants with one entry for each channel
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

    ``makes`` says that the entries determine the channels (an output axis, a bias, a scale). Otherwise, as on the input
    axis of a kernel, the entries weigh channels that other nodes make.
    """

    node: ir.Node
    index: int
    axis: int
    units: np.ndarray
    makes: bool


class Channels:
    """The units of every value of a graph; ``operators.trace`` fills it.

    ``layers`` holds for each layer by name the units of its inputs and those of its outputs, None for units that are
    not known. ``makers`` holds the units of the outputs again for all layers that make new ones: all but depthwise.
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
        """(value, units) of every value whose channels are known."""
        return iter(self._units.items())

    def of(self, value: ir.Value | None) -> np.ndarray | None:
        """The units of a value; None for a value whose channels are not known."""
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
        """For each unit its root: the number that all units tied together share."""
        return np.array([self._root(unit) for unit in units.tolist()], np.int64)

    def freeze(self, units: np.ndarray, reason: str) -> None:
        """Says that ``units`` must stay: because the layer that makes them ``reason``."""
        self._frozen.append((units, reason))

    def refuse(self, node: ir.Node, reason: str) -> None:
        """Freezes all units that ``node`` reads; the channels of its outputs stay unknown."""
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
        """The name of a node in messages."""
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

    The constant takes the place and the name of the old one, or ``name`` if the input was empty. An old constant that
    other nodes read stays, and the new one gets a name of its own.
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
