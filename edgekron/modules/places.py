"""The layers of a hub in a torch module, and the values before and behind them under the names that the hub gives them.

A layer's output is taken behind the batch normalisation that the hub folded into it, so that a dense module, a
factorized one and every file made of them show the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.utils.hooks import RemovableHandle

    from edgekron.graph import Hub


@dataclass(frozen=True)
class Place:
    """A layer in the module: its modules that run ``first`` and ``last``, and the values [N, *shape] before and behind
    them.
    """

    layer: str
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


def places(module: nn.Module, hub: Hub, norms: Mapping[str, str]) -> Iterator[Place]:
    """The layers of the hub that are modules; ``norms`` has the normalisations that the hub folded, by layer.

    A weight that a function uses is a layer of the hub, and of no module.
    """
    modules = dict(module.named_modules())
    for layer in hub.layers():
        first, last = modules.get(layer.name), modules.get(norms.get(layer.name, layer.name))
        shapes = _shape(layer.node.inputs[0]), _shape(layer.node.outputs[0])
        if first is not None and last is not None and shapes[0] is not None and shapes[1] is not None:
            yield Place(layer.name, first, last, layer.input, layer.output, shapes[0], shapes[1])


def values_at(module: nn.Module, at: Sequence[Place], *x: torch.Tensor) -> tuple[dict[str, np.ndarray], object]:
    """(inputs and outputs of the layers that run once, by name; what the module gives) for the module's inputs ``x``.

    Values that have another shape in the hub are left out.
    """
    seen: dict[str, list[np.ndarray]] = {}

    def keep(name: str, value: object, shape: tuple[int, ...]) -> None:
        if isinstance(value, torch.Tensor):
            # A copy: activations that work in place come next.
            seen.setdefault(name, []).append(like(value.numpy().copy(), shape))

    with ExitStack() as stack, torch.no_grad():
        for place in at:
            for handle in _hooks(place, keep):
                stack.callback(handle.remove)
        output = module(*x)
    # The output of one layer may be the input of the next, and is then seen twice with the same values.
    once = {name: values[0] for name, values in seen.items() if all(np.array_equal(values[0], v) for v in values)}
    known = {place.output: place.output_shape for place in at} | {place.input: place.input_shape for place in at}
    return {name: value for name, value in once.items() if value.shape[1:] == known[name]}, output


def like(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array as [N, *shape] where only axes of size one make the difference."""
    without = [n for n in array.shape[1:] if n != 1]
    return array.reshape(len(array), *shape) if without == [n for n in shape if n != 1] else array


def tensors_of(output: object) -> Iterator[torch.Tensor]:
    """The tensors of a module's output, in the order of its graph's outputs."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_of(value)


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes without the batch; None where one is not known."""
    sizes = tuple(value.shape)[1:] if value is not None and value.shape is not None else (None,)
    return tuple(size for size in sizes if isinstance(size, int)) if all(isinstance(n, int) for n in sizes) else None


def _hooks(place: Place, keep: Callable[[str, object, tuple[int, ...]], None]) -> Iterator[RemovableHandle]:
    def before(_: nn.Module, inputs: tuple[object, ...]) -> None:
        if inputs:
            keep(place.input, inputs[0], place.input_shape)

    def behind(_: nn.Module, __: tuple[object, ...], output: object) -> None:
        keep(place.output, output, place.output_shape)

    yield place.first.register_forward_pre_hook(before)
    yield place.last.register_forward_hook(behind)
