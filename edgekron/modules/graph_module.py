"""A hub as a torch module that can be trained, and the trained module as a hub again.

    module = GraphModule(hub)           # any hub: from a torch module, an ONNX file, a compressed folder
    ... train the module with any loop ...
    hub = module.to_hub()

Each layer is a submodule that has the layer's name, by which forward hooks find it; a factorized layer is a module of
``edgekron.modules.layers``. Weights of layers and of normalisations are trained; everything else is a constant. With
``normalise`` convolutions get a batch normalisation for the time of training (see ``foldable_norm``), which ``to_hub``
folds in again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgekron.graph import Hub
from edgekron.graph.factorized import is_factorized, read_node
from edgekron.graph.layers import layer_names

from . import arithmetic_operators, image_operators, shape_operators  # noqa: F401  they enter their operators in the table
from .foldable_norm import FoldableNorm
from .known_sizes import with_known_sizes
from .layers import FactorizedLayer, factorized_layer
from .node_modules import (
    TRAINED,
    Normalised,
    OperatorModule,
    array,
    fold_into_dense,
    operator_module,
    parts_of,
    trainable,
    trained_layer,
)
from .operator_registry import Function, translate


@dataclass(frozen=True)
class _Step:
    """One node: what it reads (None for an input left out), what it makes, and the function or submodule to call."""

    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    function: Function | None
    module: str


class GraphModule(nn.Module):
    """The network of ``hub``, [N, C, H, W] to its output, or a tuple of them. Raises ``UserError`` for an operator
    that cannot be trained.
    """

    def __init__(self, hub: Hub, *, normalise: bool = False) -> None:
        super().__init__()
        self._hub = hub.copy()
        graph = with_known_sizes(self._hub.model).graph
        self._steps: list[_Step] = []
        self._constants: dict[str, str] = {}
        self._places: dict[str, str] = {}
        shared: dict[str, nn.Parameter] = {}
        names = layer_names(graph)
        for node in graph:
            name = names.get(node) or str(node.name or node.outputs[0].name)
            module: nn.Module | None
            module = factorized_layer(read_node(node)) if is_factorized(node) else operator_module(node, shared)
            inputs = list(node.inputs[:1]) if is_factorized(node) else list(node.inputs)
            if isinstance(module, OperatorModule):
                inputs = [v for i, v in enumerate(inputs) if i not in TRAINED[node.op_type] or not trainable(v)]
            for value in inputs:
                self._keep_constant(value)
            if module is not None and normalise and (parts := parts_of(node, module)) is not None:
                module = Normalised(module, FoldableNorm(parts))
            place = self._add(name, module) if module is not None else ""
            self._steps.append(
                _Step(
                    tuple(None if value is None else str(value.name) for value in inputs),
                    tuple(str(value.name) for value in node.outputs),
                    translate(node) if module is None else None,
                    place,
                )
            )
        self._parts: dict[tuple[tuple[str, ...], tuple[str, ...]], list[tuple[_Step, tuple[str, ...]]]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> GraphModule:
        # The hub is never written to, and cannot be copied by this protocol.
        memo[id(self._hub)] = self._hub
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    @property
    def layers(self) -> dict[str, str]:
        """Names of the hub's layers, each with the name of its submodule: the same, unless torch forbids the name."""
        return dict(self._places)

    @property
    def input_name(self) -> str:
        """Name of the hub's input."""
        return self._hub.input_name

    def bottlenecks(self) -> list[str]:
        """Values that are alone alive behind the node that makes them, in order, without the network's output."""
        last = {name: index for index, step in enumerate(self._steps) for name in step.inputs if name is not None}
        last |= dict.fromkeys(self._hub.output_names, len(self._steps))
        alive: set[str] = {self.input_name}
        found = []
        for index, step in enumerate(self._steps[:-1]):
            alive |= set(step.outputs)
            alive = {name for name in alive if last.get(name, -1) > index}
            if len(alive) == 1 and alive <= set(step.outputs):
                found.append(step.outputs[0])
        return found

    def made_between(self, begin: str, end: str) -> list[str]:
        """Names of the values that running from ``begin`` to ``end`` makes, in order."""
        return [name for step, _ in self._needed((begin,), (end,)) for name in step.outputs]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.run({self._hub.input_name: x}, self._hub.output_names)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Tensor]:
        """The values ``wanted`` of the graph from the values ``given``; runs no node that is not needed for them."""
        key = tuple(given), tuple(wanted)
        if key not in self._parts:
            self._parts[key] = self._needed(*key)
        values: dict[str, Tensor | None] = dict(given)
        for step, finished in self._parts[key]:
            inputs = [None if n is None else values[n] if n in values else self._constant(n) for n in step.inputs]
            result = (self.get_submodule(step.module) if step.module else cast(Function, step.function))(*inputs)
            values.update(zip(step.outputs, result if isinstance(result, tuple | list) else [result], strict=False))
            for name in finished:
                del values[name]
        return [cast(Tensor, values[name]) for name in wanted]

    def _needed(self, given: tuple[str, ...], wanted: tuple[str, ...]) -> list[tuple[_Step, tuple[str, ...]]]:
        """The steps from ``given`` to ``wanted``, each with the values that nothing needs after it."""
        needed, alive, steps = set(wanted), set(wanted), []
        for step in reversed(self._steps):
            if needed.isdisjoint(step.outputs) or set(step.outputs) <= set(given):
                continue
            reads = {name for name in step.inputs if name is not None and name not in self._constants}
            finished = (reads | set(step.outputs)) - alive
            alive |= reads
            needed |= reads
            steps.append((step, tuple(finished)))
        return steps[::-1]

    @torch.no_grad()
    def to_hub(self) -> Hub:
        """A hub with the weights as they are now, normalisations folded in."""
        hub = self._hub.copy()
        for layer in hub.layers():
            module = self.get_submodule(self._places[layer.name])
            norm = module.norm if isinstance(module, Normalised) else None
            inner = module.layer if isinstance(module, Normalised) else module
            if layer.factorized is not None:
                hub.factorize(layer.name, trained_layer(layer.factorized, cast(FactorizedLayer, inner), norm))
            elif norm is not None:
                fold_into_dense(hub, layer.node, cast(OperatorModule, inner), norm)
        initializers = hub.model.graph.initializers
        for module in self.modules():
            if isinstance(module, OperatorModule):
                for key, name in module.names.items():
                    if name in initializers and not self._is_folded(module):
                        initializers[name].const_value = ir.tensor(array(getattr(module, key)), name=name)
        return hub

    def _is_folded(self, operator: OperatorModule) -> bool:
        return any(isinstance(m, Normalised) and m.layer is operator for m in self.modules())

    def _keep_constant(self, value: ir.Value | None) -> None:
        if value is None or not value.is_initializer() or str(value.name) in self._constants:
            return
        if value.const_value is not None:
            key = f"constant{len(self._constants)}"
            self._constants[str(value.name)] = key
            self.register_buffer(key, torch.tensor(value.const_value.numpy()), persistent=False)

    def _constant(self, name: str) -> Tensor:
        return cast(Tensor, getattr(self, self._constants[name]))

    def _add(self, name: str, module: nn.Module) -> str:
        """Enters a submodule under a dotted name, with "_" appended to each word of it that torch uses itself."""
        parent: nn.Module = self
        path = []
        parts = [part or "_" for part in name.split(".")]
        for last, part in zip([*[False] * (len(parts) - 1), True], parts, strict=True):
            word = part
            while hasattr(parent, word) and (last or not isinstance(getattr(parent, word), nn.Module)):
                word += "_"
            if last:
                parent.add_module(word, module)
            elif not hasattr(parent, word):
                parent.add_module(word, nn.Module())
            parent = parent.get_submodule(word)
            path.append(word)
        self._places[name] = ".".join(path)
        return self._places[name]
