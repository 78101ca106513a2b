"""Where a network's channels are made: the trained tensors with an entry for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from edgekron.modules.graph_module import GraphModule
from edgekron.modules.node_modules import Normalised, OperatorModule
from edgekron.pruning import Structure

from .kernel import AwareLayer

if TYPE_CHECKING:
    from edgekron.graph import Layer


@dataclass(frozen=True)
class Entries:
    """The tensor ``name`` of ``owner`` has entries of channels along an axis; ``roots`` [n] are these channels.

    ``layer`` is the layer that it belongs to, empty for another operator. ``makes`` says that the channels are made
    there, and not only carried on, as in a depthwise layer.
    """

    owner: nn.Module
    name: str
    axis: int
    roots: Tensor
    layer: str
    makes: bool

    @property
    def tensor(self) -> Tensor:
        """The tensor as it is now."""
        return cast(Tensor, getattr(self.owner, self.name)).detach()

    def scale(self, factors: Tensor) -> None:
        """Multiplies the entries by ``factors`` [n], in place."""
        tensor = self.tensor
        tensor.mul_(factors.to(tensor.dtype).view([-1 if a == self.axis else 1 for a in range(tensor.ndim)]))

    def norms(self) -> Tensor:
        """The norm of each channel's entries, [n]."""
        return self.tensor.transpose(0, self.axis).flatten(1).norm(dim=1)


def find_entries(
    module: GraphModule, structure: Structure, layers: Iterable[Layer], blocks: Mapping[str, AwareLayer]
) -> Iterator[Entries]:
    """All of them: gain and shift where a layer has a normalisation behind it, else coefficients or weights and bias;
    and those of operators between the layers.
    """
    channels, normalised = structure.channels, set()
    for layer in layers:
        outputs = channels.layers.get(layer.name, (None, None))[1]
        if outputs is None:
            continue
        roots, makes = torch.from_numpy(channels.roots(outputs)), layer.name in channels.makers
        part = module.get_submodule(module.layers[layer.name])
        if isinstance(part, Normalised):
            yield from (Entries(part.norm, name, 0, roots, layer.name, makes) for name in ("gain", "shift"))
            normalised.add(layer.name)
        elif layer.name in blocks:
            yield Entries(blocks[layer.name].parameters, "original1", 0, roots, layer.name, makes)
    named = {
        name: (part, key)
        for part in module.modules()
        if isinstance(part, OperatorModule)
        for key, name in part.names.items()
    }
    for axis in channels.axes:
        value, layer_name = axis.node.inputs[axis.index], channels.names.get(axis.node, "")
        if not axis.makes or value is None or str(value.name) not in named or layer_name in normalised:
            continue
        operator, key = named[str(value.name)]
        # A weight that is a block has its entries already.
        if key in operator.plain():
            roots = torch.from_numpy(channels.roots(axis.units))
            yield Entries(operator, key, axis.axis, roots, layer_name, layer_name in channels.makers)
