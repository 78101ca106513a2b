"""A torch module as a version: the inputs and outputs of its layers under the names that they have in its hub.

A layer's output is taken behind the batch normalisation that the hub folded into it, so that a dense module, a
factorized one and every file made of them show the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from edgekron.errors import UserError
from edgekron.graph.parts import joined_outputs
from edgekron.graph.passes.fold_batch_norm import folded_norms
from edgekron.modules.layers import FactorizedConv1d, FactorizedConvTranspose1d

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.utils.hooks import RemovableHandle

    from edgekron.graph import Hub

#: Layers of [N, C, L], which the hub holds as images of a single row.
_OF_ROWS = (nn.Conv1d, nn.ConvTranspose1d, FactorizedConv1d, FactorizedConvTranspose1d)


@dataclass(frozen=True)
class _Place:
    """A layer in the module: its modules that run ``first`` and ``last``, and the values [N, *shape] before and behind
    them.
    """

    first: nn.Module
    last: nn.Module
    input: str
    output: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """The layer, and the normalisation that belongs to it."""
        y: torch.Tensor = self.first(x)
        return y if self.last is self.first else self.last(y)


class TorchVersion:
    """``module``, whose hub is ``hub``, in evaluation mode."""

    kind, precision = "torch", "float32"

    def __init__(self, module: nn.Module, hub: Hub) -> None:
        self.identity, self.input_shape = hub.identity, hub.input_shape
        self.input, self.outputs = hub.input_name, list(hub.output_names)
        self.joined = joined_outputs(hub.model.graph)
        self._module = module.eval()
        self._places = list(_places(module, hub))
        self.inner = list(dict.fromkeys(name for place in self._places for name in (place.input, place.output)))

    def run(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs, by the names that they have in the hub."""
        with torch.no_grad():
            found = list(_tensors(self._module(torch.from_numpy(x))))
        if len(found) != len(self.outputs):
            raise UserError(f"the module gives {len(found)} outputs and its graph {len(self.outputs)}; compare files.")
        return {name: y.numpy() for name, y in zip(self.outputs, found, strict=True)}

    def look(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """Inputs and outputs of the layers that run once; what has another shape in the hub is left out."""
        seen: dict[str, list[np.ndarray]] = {}

        def keep(name: str, value: object, shape: tuple[int, ...]) -> None:
            if isinstance(value, torch.Tensor):
                # A copy: activations that work in place come next.
                seen.setdefault(name, []).append(_like(value.numpy().copy(), shape))

        with ExitStack() as stack, torch.no_grad():
            for place in self._places:
                for handle in _hooks(place, keep):
                    stack.callback(handle.remove)
            self._module(torch.from_numpy(x))
        # The output of one layer may be the input of the next, and is then seen twice with the same values.
        once = {name: values[0] for name, values in seen.items() if all(np.array_equal(values[0], v) for v in values)}
        known = {p.output: p.output_shape for p in self._places} | {p.input: p.input_shape for p in self._places}
        return {name: value for name, value in once.items() if value.shape[1:] == known[name]}

    def redo(self, x: np.ndarray, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The output of each layer for the layer's input among ``values`` (``x`` is the network's), by name."""
        values, made = {**values, self.input: x}, {}
        with torch.no_grad():
            for place in self._places:
                if place.input in values:
                    entry = torch.from_numpy(values[place.input])
                    row = isinstance(place.first, _OF_ROWS) and entry.ndim == 4
                    y = place.run(entry.squeeze(2) if row else entry)
                    made[place.output] = _like(y.numpy(), place.output_shape)
        return made


def _places(module: nn.Module, hub: Hub) -> Iterator[_Place]:
    """The layers of the hub that are modules. A weight that a function uses is a layer of the hub, and of no module."""
    norms = folded_norms(hub.model)
    modules = dict(module.named_modules())
    for layer in hub.layers():
        first, last = modules.get(layer.name), modules.get(norms.get(layer.name, layer.name))
        shapes = _shape(layer.node.inputs[0]), _shape(layer.node.outputs[0])
        if first is not None and last is not None and shapes[0] is not None and shapes[1] is not None:
            yield _Place(first, last, layer.input, layer.output, shapes[0], shapes[1])


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes without the batch; None where one is not known."""
    sizes = tuple(value.shape)[1:] if value is not None and value.shape is not None else (None,)
    return tuple(size for size in sizes if isinstance(size, int)) if all(isinstance(n, int) for n in sizes) else None


def _hooks(place: _Place, keep: Callable[[str, object, tuple[int, ...]], None]) -> Iterator[RemovableHandle]:
    def before(_: nn.Module, inputs: tuple[object, ...]) -> None:
        if inputs:
            keep(place.input, inputs[0], place.input_shape)

    def behind(_: nn.Module, __: tuple[object, ...], output: object) -> None:
        keep(place.output, output, place.output_shape)

    yield place.first.register_forward_pre_hook(before)
    yield place.last.register_forward_hook(behind)


def _like(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array as [N, *shape] where only axes of size one make the difference."""
    without = [n for n in array.shape[1:] if n != 1]
    return array.reshape(len(array), *shape) if without == [n for n in shape if n != 1] else array


def _tensors(output: object) -> Iterator[torch.Tensor]:
    """The tensors of a module's output, in the order of its graph's outputs."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
