"""Sizes of columns and channels: how much the network's outputs would change without each of them.

A size is measured on images, to first order (``measures.losses``), and until the next measurement follows the weights:
the norm of a column's filter, and of an output channel its deviation, which behind a normalisation is its gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from edgekron.modules.graph_module import GraphModule
from edgekron.pruning import Group

from .entries import Entries, Places, norm_of, part_of
from .kernel import AwareLayer
from .measures import losses, measure_responses


class Sizes:
    """Sizes of the columns of ``blocks``, and of the channels of ``groups``; ``entries`` are the tensors of channels.

    All state is in buffers of the module, whose buffer "edp_alive" says which channels are alive.
    """

    def __init__(
        self,
        module: GraphModule,
        blocks: Mapping[str, AwareLayer],
        groups: Sequence[Group],
        entries: Sequence[Entries],
        index: Places,
    ) -> None:
        self._module, self._blocks, self._groups, self._index = module, blocks, groups, index
        self._weights = {each.layer: each for each in reversed(entries) if each.name == "weight"}
        device = cast(Tensor, module.edp_alive).device
        module.register_buffer("edp_unit", torch.ones((), device=device))
        self._makers = {name: part_of(module, name) for group in groups for name in group.layers}
        for name, part in self._makers.items():
            part.register_buffer("edp_worth", torch.ones(len(self._outputs(name)), device=device))

    @torch.no_grad()
    def measure(self, images: Tensor, *, first: bool) -> None:
        """Measures responses of layers and losses of outputs on ``images``.

        The ``first`` measurement fixes the unit of all sizes, so that their mean square begins as one.
        """
        measure_responses(self._module, self._blocks, images)
        columns, rows = losses(self._module, self._blocks, self._makers, images)
        for name, layer in self._blocks.items():
            norms = layer.basis.flatten(1).norm(dim=1).clamp_min(1e-30)
            layer.kernel.worth.copy_(columns.get(name, torch.zeros_like(norms)) / norms)
        for name in self._makers:
            outputs = self._outputs(name)
            self._worth(name).copy_(rows.get(name, torch.zeros_like(outputs)) / outputs.clamp_min(1e-30))
        if dist.is_initialized():
            # Processes must not decide differently, and gradients may differ in their last bits.
            for layer in self._blocks.values():
                dist.broadcast(layer.kernel.worth, 0)
            for name in self._makers:
                dist.broadcast(self._worth(name), 0)
        if first:
            sizes = torch.cat([*self.columns().values(), *self.rows().values()])
            self._unit.copy_(sizes.square().mean().sqrt().clamp_min(1e-30))

    def columns(self) -> dict[str, Tensor]:
        """Sizes [r] of each block's columns, 0 for dead ones."""
        worths = {name: layer.kernel.worth * layer.kernel.columns for name, layer in self._blocks.items()}
        return {n: x.basis.flatten(1).norm(dim=1) * worths[n] / self._unit for n, x in self._blocks.items()}

    def rows(self) -> dict[str, Tensor]:
        """Sizes [n] of each group's channels, over all layers that make them; 0 for dead ones."""
        found = {}
        alive = cast(Tensor, self._module.edp_alive)
        for group in self._groups:
            squares = torch.zeros(len(group.units), device=alive.device)
            for name in group.layers:
                each = self._outputs(name) * self._worth(name)
                squares += each[self._index(group.made[name])].square()
            found[group.name] = squares.sqrt() / self._unit * alive[self._index(group.units)]
        return found

    def _outputs(self, name: str) -> Tensor:
        """How much each output [F] of a layer varies; of a layer without a block, the norm of its weights."""
        if (norm := norm_of(self._module, name)) is not None:
            return norm.gain.detach().abs()
        return self._blocks[name].output_deviations() if name in self._blocks else self._weights[name].norms()

    def _worth(self, name: str) -> Tensor:
        return cast(Tensor, self._makers[name].edp_worth)

    @property
    def _unit(self) -> Tensor:
        return cast(Tensor, self._module.edp_unit)
