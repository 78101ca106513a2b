"""EDP's one training stage: low rank and sparse channels learnt together, down to a budget.

Source: Ruan et al., *EDP* (IEEE TNNLS 2021). Blocks and proximal steps are in ``blocks``; this module decides the
points that the paper's text leaves open. Each layer without groups gets a block (``kernel``). After every step on the
loss comes the proximal step of

    strength * sum over columns and channels g of share(g) * log size(g)

``size`` is the change of the network's outputs without g (``sizes``), and ``share`` the share of the network's cost
that g stands for. Step by step the penalty takes its share from the squares of all sizes, so the first groups to die
are those that do the least damage for the cost that they save. Norms of weights would not show the damage: a
normalisation takes any scale back, and layers differ in the use that is made of their outputs.

A controller sets the strength. It grows while the network costs more than a straight line from the whole cost to the
budget allows, and falls while the network costs less. The line ends at ``SETTLE`` of the training. There, or as soon as
the budget is met, the selection is settled: groups that the penalty has not taken by then go at once, in the same
order; numbers of channels and ranks move to near ones that run well, for which dead columns may get up again; the
penalty ends, and the rest of the training is spent on the groups that are left.

A channel whose size is zero makes zero from then on: its gain and its shift are kept at zero, and those of depthwise
layers behind it. So the channel can be removed, and nothing changes. Where it would not arrive as zero, behind a
sigmoid for one, all channels stay, and only ranks are learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.modules.graph_module import GraphModule
from edgekron.pruning import ChannelStructure

from .blocks import LowRankBlock, shrinkage
from .budget import EdpBudget
from .entries import Places, find_entries, norm_of
from .opening import open_blocks, silent_groups
from .settling import Selection, Settling, lost, spare
from .sizes import Sizes

#: Share of the training after which nothing more is taken.
SETTLE = 0.25
#: By how much half the square of a group of mean share and size would fall until then, if the strength stayed as it
#: begins.
START = 0.1
#: The power of e by which the strength may change until then, and at most in one step; the excess of cost at which it
#: changes fastest.
RANGE, STEEPEST, SLACK = 10.0, 0.5, 0.02
#: How much longer a row may become in one step that gets its length back.
LONGER = 2.0
#: Images that responses are measured on, and steps after which they are measured again.
IMAGES, EVERY = 256, 200


class CompressedAware:
    """Opens the blocks of ``module``, a ``GraphModule`` of ``hub``, and takes them down to ``ratios``.

    ``ratios`` maps "macs" or "parameters" to how many times fewer there are to be. Sizes are measured on ``images``
    [N, C, H, W]. ``step`` comes after each step of an optimiser whose highest rate is ``learning_rate``. All state is
    in buffers of the module. Raises ``UserError`` for a network that is compressed already, for a network without a
    rank or a channel that could go, and for ratios that cannot be reached.
    """

    def __init__(
        self,
        module: GraphModule,
        hub: Hub,
        ratios: Mapping[str, float],
        images: Tensor,
        *,
        learning_rate: float,
        any_width: bool = False,
    ) -> None:
        layers = hub.layers()
        if any(layer.factorized for layer in layers):
            raise UserError("the network is compressed already; give edp the one that it was made of.")
        self._module, self._learning_rate, self._images = module, learning_rate, images[:IMAGES]
        structure = ChannelStructure(hub)
        self.layers = open_blocks(module, layers, self._images)
        units = _count(structure)
        module.register_buffer("edp_alive", torch.ones(units, dtype=torch.uint8, device=images.device))
        module.register_buffer("edp_strength", torch.zeros(1, dtype=torch.float64, device=images.device))
        #: [whether all is settled; how many were taken at once then, and how many to come to numbers that run well]
        module.register_buffer("edp_facts", torch.zeros(3, dtype=torch.int64, device=images.device))
        self._entries = list(find_entries(module, structure, layers, self.layers))
        self._roots = [entries.roots.to(images.device) for entries in self._entries]
        self._index = Places(images.device)
        free = [group for group in structure.groups if group.reason is None]
        self._groups = silent_groups(module, free, self._entries, units, self._index, self._images[:2])
        if not self._groups and not self.layers:
            raise UserError(
                "edp finds no layer in this network whose rank or channels it could learn; see `edgekron inspect`."
            )
        ranks = {name: len(layer.kernel.columns) for name, layer in self.layers.items()}
        budget = EdpBudget(structure, self._groups, layers, ranks, any_width=any_width)
        self._column_shares, self._row_shares = budget.group_shares(tuple(ratios))
        self._sizes = Sizes(module, self.layers, self._groups, self._entries, self._index)
        units_of = {group.name: self._index(group.units) for group in self._groups}
        self._settling = Settling(budget, dict(ratios), self._groups, units_of)
        self._settling.check(self._selection())

    @property
    def settled(self) -> bool:
        """Whether nothing more will be taken."""
        return bool(self._facts[0])

    @property
    def forced(self) -> int:
        """How many columns and channels the penalty had not taken, so that settling took them at once."""
        return int(self._facts[1])

    @property
    def rounded(self) -> int:
        """How many more columns and channels settling took, to come to numbers that run well."""
        return int(self._facts[2])

    def dead(self) -> dict[str, list[int]]:
        """The places of the dead channels of each group, by the group's first layer."""
        alive = self._alive.cpu().numpy().astype(bool)
        return {group.name: np.flatnonzero(~alive[group.units]).tolist() for group in self._groups}

    def block(self, name: str) -> LowRankBlock:
        """The block of a layer, behind its normalisation."""
        block, norm = self.layers[name].block(), norm_of(self._module, name)
        return block if norm is None else LowRankBlock(block.basis, block.coefficients * norm.scale().detach()[:, None])

    @torch.no_grad()
    def step(self, rate: float, step: int, steps: int) -> bool:
        """The proximal step after step number ``step`` of ``steps``, taken with the learning rate ``rate``.

        Says whether an average of the weights is to begin anew: with every measurement of sizes, and when all is
        settled, because earlier weights are then of another network.
        """
        for layer in self.layers.values():
            layer.retract()
        if self.settled:
            self._silence()
            return False
        if fresh := (step - 1) % EVERY == 0:
            self._sizes.measure(self._images, first=step == 1)
        end = max(1.0, SETTLE * steps)
        if step == 1:
            self._strength.fill_(START / (self._learning_rate * end))
        excess = self._settling.excess(self._selection(), min(1.0, step / end))
        self._strength.mul_(math.exp(min(RANGE / end, STEEPEST) * max(-1.0, min(1.0, excess / SLACK))))
        columns, rows = self._factors(float(self._strength) * rate)
        left = self._surviving(columns, rows)
        if step >= end or self._settling.excess(left, 1.0) <= 0:
            self._settle(left)
        else:
            self._shrink(columns, rows, left)
        self._silence()
        for layer in self.layers.values():
            layer.balance()
        return fresh or self.settled

    @torch.no_grad()
    def silence(self) -> None:
        """Zeros the entries of dead channels in the weights as they are now, such as an average of earlier weights."""
        self._silence()

    def _factors(self, strength: float) -> tuple[dict[str, Tensor], Tensor]:
        """The factors of the proximal step for the columns [r] of each layer, and for all channels [units].

        The penalty of a column or channel is ``strength`` times its share of the cost.
        """
        columns = {}
        for name, sizes in self._sizes.columns().items():
            shrunk = shrinkage(sizes, torch.full_like(sizes, strength * self._column_shares[name]))
            columns[name] = spare(shrunk, sizes, self.layers[name].kernel.columns.bool())
        rows = torch.ones(len(self._alive), device=self._alive.device)
        for group, sizes in zip(self._groups, self._sizes.rows().values(), strict=True):
            units = self._index(group.units)
            alive = self._alive[units].bool()
            shrunk = shrinkage(sizes, torch.full_like(sizes, strength * self._row_shares[group.name]))
            rows[units] = torch.where(alive, spare(shrunk, sizes, alive, group.parts), 1.0)
        return columns, rows

    def _surviving(self, columns: Mapping[str, Tensor], rows: Tensor) -> Selection:
        """The selection after the proximal step."""
        alive, ranks = self._selection()
        return alive * (rows > 0), {name: ranks[name] * (factors > 0) for name, factors in columns.items()}

    def _shrink(self, columns: Mapping[str, Tensor], rows: Tensor, left: Selection) -> None:
        """Takes the proximal step, which leaves ``left`` alive."""
        for name, factors in columns.items():
            layer = self.layers[name]
            before = layer.output_deviations()
            layer.basis.mul_(factors[:, None, None, None])
            layer.kernel.columns.copy_(left[1][name])
            self._follow(name, before)
        for entries, roots in zip(self._entries, self._roots, strict=True):
            if entries.makes:
                entries.scale(rows[roots])
        self._alive.copy_(left[0])

    def _follow(self, name: str, before: Tensor) -> None:
        """Takes the shrinkage of a layer's outputs, whose deviations were ``before`` [F], to the normalisation behind.

        Statistics of batches would undo the shrinkage, so each channel's gain loses the share that the channel's
        deviation has lost. Then the rows of coefficients get their length back, and the statistics follow, which
        changes nothing: otherwise steps would turn shorter and shorter rows further and further.
        """
        norm, layer = norm_of(self._module, name), self.layers[name]
        if norm is None:
            return
        lost = layer.output_deviations() / before.clamp_min(1e-30)
        longer = torch.where(lost > 0, 1 / lost.clamp_min(1e-30), 1.0).clamp_max(LONGER)
        norm.gain.mul_(lost)
        layer.coefficients.mul_(longer[:, None])
        if (bias := getattr(layer.operator, "bias", None)) is not None:
            bias.mul_(longer)
        norm.mean.mul_(longer)
        norm.variance.mul_((longer * lost).square())

    def _settle(self, left: Selection) -> None:
        """Ends the penalty, in place of a proximal step that would leave ``left``.

        As many columns and channels go as the budget wants, those of the least size for their share of the cost first.
        """
        columns = {name: sizes / self._column_shares[name] ** 0.5 for name, sizes in self._sizes.columns().items()}
        rows = {name: sizes / self._row_shares[name] ** 0.5 for name, sizes in self._sizes.rows().items()}
        taken, settled = self._settling.settle(self._selection(), (columns, rows))
        self._alive.copy_(settled[0])
        for name, layer in self.layers.items():
            # A column that gets up again begins with nothing: momentum has moved its filter since.
            layer.basis.mul_(layer.kernel.columns[:, None, None, None])
            layer.kernel.columns.copy_(settled[1][name])
        self._facts.copy_(torch.tensor([1, lost(left, taken), lost(taken, settled)]))

    def _selection(self) -> Selection:
        return self._alive.clone(), {name: layer.kernel.columns.clone() for name, layer in self.layers.items()}

    def _silence(self) -> None:
        """Zeros the entries of dead channels."""
        alive = self._alive.cpu()
        if bool(alive.all()):
            return
        for entries in self._entries:
            if not bool((mine := alive[entries.roots]).all()):
                entries.scale(mine.to(self._alive.device))

    @property
    def _alive(self) -> Tensor:
        return cast(Tensor, self._module.edp_alive)

    @property
    def _strength(self) -> Tensor:
        return cast(Tensor, self._module.edp_strength)

    @property
    def _facts(self) -> Tensor:
        return cast(Tensor, self._module.edp_facts)


def _count(structure: ChannelStructure) -> int:
    """One more than the highest root of a channel that a layer reads or makes."""
    channels = structure.channels
    known = [units for pair in channels.layers.values() for units in pair if units is not None]
    return 1 + max((int(channels.roots(units).max()) for units in known if len(units)), default=0)
