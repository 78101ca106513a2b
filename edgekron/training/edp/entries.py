"""The trained tensors that make a network's channels, and the parts of a module by the names of their layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgekron.modules.foldable_norm import FoldableNorm
from edgekron.modules.graph_module import GraphModule
from edgekron.modules.node_modules import Normalised, OperatorModule
from edgekron.pruning import ChannelStructure

from .kernel import AwareLayer

if TYPE_CHECKING:
    from edgekron.graph import Layer


@dataclass(frozen=True)
class Entries:
    """The tensor ``name`` of ``owner`` has entries of channels along an axis; ``roots`` [n] are these channels.

    ``layer`` is the layer that the tensor belongs to, empty for another operator. ``makes`` says that the tensor makes
    the channels, and does not only carry them on, as in a depthwise layer.
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


class Places:
    """Arrays of places, which belong to groups, as tensors on ``device``; each is moved there once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: dict[int, tuple[np.ndarray, Tensor]] = {}

    def __call__(self, places: np.ndarray) -> Tensor:
        if id(places) not in self._known:
            self._known[id(places)] = places, torch.from_numpy(places).to(self._device)
        return self._known[id(places)][1]


def part_of(module: GraphModule, name: str) -> nn.Module:
    """The submodule of the layer ``name``."""
    return module.get_submodule(module.layers[name])


def norm_of(module: GraphModule, name: str) -> FoldableNorm | None:
    """The normalisation behind a layer, with one gain for each channel: nothing is factorized yet."""
    part = part_of(module, name)
    return part.norm if isinstance(part, Normalised) else None


def operator_of(module: GraphModule, name: str) -> OperatorModule | None:
    """The operator of a layer, None for one without a trained weight."""
    part = part_of(module, name)
    part = part.layer if isinstance(part, Normalised) else part
    return part if isinstance(part, OperatorModule) and "weight" in part.names else None


def find_entries(
    module: GraphModule, structure: ChannelStructure, layers: Iterable[Layer], blocks: Mapping[str, AwareLayer]
) -> Iterator[Entries]:
    """The entries of all layers, and of the operators between layers.

    Those of a layer are in the gain and the shift of the normalisation behind the layer; where there is none, in its
    coefficients, or in its weight, and in its bias.
    """
    channels, normalised = structure.channels, set()
    for layer in layers:
        outputs = channels.layers.get(layer.name, (None, None))[1]
        if outputs is None:
            continue
        roots, makes = torch.from_numpy(channels.roots(outputs)), layer.name in channels.makers
        part = part_of(module, layer.name)
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
