"""EDP's one training stage: low rank and sparse channels learnt together, down to a budget.

Source: Ruan et al., *EDP* (IEEE TNNLS 2021), whose blocks and proximal steps are in ``edgekron.training.edp.blocks``; what its
text leaves open is decided here. Each layer without groups gets a block (``aware_kernel``). After every step on the
loss comes the proximal step of

    strength * sum over columns and channels g of share(g) * log size(g)

``size`` is how much the network's outputs would change without g, to first order, on a few images that are looked at
again and again, and in between as much more or less of that as g's weights have grown or shrunk since: the norm of a
column's filter, and of an output channel its deviation, which behind a batch normalisation is its gain. ``share`` is
the share of the network's cost that g stands for. Step by step the penalty takes its share from the squares of all
sizes, so that those groups die first that do the least damage for the cost that they save. Norms of weights would say
nothing of it: a normalisation takes any scale back, and layers differ in what becomes of their outputs.

The strength is a controller's: it grows while the network costs more than a straight line from all to the budget
allows, and falls while it costs less. The line ends at ``SETTLE`` of the training. There, or as soon as the budget is
met, what is dead is settled: what the penalty has not taken by then, the same order takes at once; numbers of channels
and ranks move to near ones that run well, for which columns that are dead may get up again; the penalty ends, and the
rest of the training is spent on what is left.

A channel whose size is zero makes zero from then on: its gain and its shift are kept at zero, and those of depthwise
layers behind it. So it can be removed, and nothing changes. Where it would not arrive as zero (behind a sigmoid, say)
all channels stay, and only ranks are learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgekron.errors import UserError
from edgekron.graph import Hub, Layer
from edgekron.modules.foldable_norm import FoldableNorm
from edgekron.modules.graph_module import GraphModule
from edgekron.modules.node_modules import Normalised, OperatorModule
from edgekron.pruning import Group, Structure

from .blocks import LowRankBlock, shrinkage
from .budget import EdpBudget
from .entries import find_entries
from .kernel import AwareLayer, Layout
from .measures import covariances, losses, measure_responses, read_by
from .settling import Selection, Settling, lost, spare

#: Share of the training after which nothing more is taken.
SETTLE = 0.25
#: What a group of mean share and size would lose of half its square until then if the strength stayed as it begins; by
#: which power of e it may change, at most so much of it in one step; the excess of cost at which it changes fastest.
START, RANGE, STEEPEST, SLACK = 0.1, 10.0, 0.5, 0.02
#: How much longer a row may become in one step that gets its length back.
LONGER = 2.0
#: Images that responses are measured on, and steps after which they are measured again.
IMAGES, EVERY = 256, 200


class CompressedAware:
    """Opens the blocks of ``module``, a ``GraphModule`` of ``hub``, and takes them down to ``ratios``.

    ``ratios`` maps "macs" or "parameters" to how many times fewer there are to be; ``images`` [N, C, H, W] show what
    the layers make of them. ``step`` comes after each step of an optimiser whose highest rate is ``learning_rate``.
    All state is in buffers of the module. Raises ``UserError`` for a network that is compressed already, where there
    is nothing to learn, and for ratios that cannot be reached.
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
        self._module, self._ratios, self._learning_rate = module, dict(ratios), learning_rate
        self._images = images[:IMAGES]
        self._structure = Structure(hub)
        self.layers = self._open(layers)
        channels = self._structure.channels
        known = [units for pair in channels.layers.values() for units in pair if units is not None]
        units = 1 + max((int(channels.roots(u).max()) for u in known if len(u)), default=0)
        module.register_buffer("edp_alive", torch.ones(units, dtype=torch.uint8, device=images.device))
        module.register_buffer("edp_strength", torch.zeros(1, dtype=torch.float64, device=images.device))
        module.register_buffer("edp_unit", torch.ones((), device=images.device))
        #: [whether all is settled, what was taken at once then, and what to come to numbers that run well]
        module.register_buffer("edp_facts", torch.zeros(3, dtype=torch.int64, device=images.device))
        self._entries = list(find_entries(module, self._structure, layers, self.layers))
        self._roots = [entries.roots.to(images.device) for entries in self._entries]
        self._places: dict[int, tuple[np.ndarray, Tensor]] = {}
        self._groups = self._silent([group for group in self._structure.groups if group.reason is None])
        if not self._groups and not self.layers:
            raise UserError(
                "edp finds no layer in this network whose rank or channels it could learn; see `edgekron inspect`."
            )
        ranks = {name: len(layer.kernel.columns) for name, layer in self.layers.items()}
        budget = EdpBudget(self._structure, self._groups, layers, ranks, any_width=any_width)
        costs = tuple(ratios)
        columns = {name: budget.column_share(name, costs) for name in self.layers}
        rows = {group.name: self._row_share(group, costs) for group in self._groups}
        counts = [ranks[name] for name in columns] + [len(group.units) for group in self._groups]
        mean = float(np.average([*columns.values(), *rows.values()], weights=counts))
        self._column_shares = {name: share / mean for name, share in columns.items()}
        self._row_shares = {name: share / mean for name, share in rows.items()}
        self._makers = {name: self._part(name) for group in self._groups for name in group.layers}
        for name, part in self._makers.items():
            part.register_buffer("edp_worth", torch.ones(len(self._outputs(name)), device=images.device))
        units_of = {group.name: self._index(group.units) for group in self._groups}
        self._settling = Settling(budget, self._ratios, self._groups, units_of)
        self._settling.check(self._selection())

    @property
    def settled(self) -> bool:
        """Whether nothing more will be taken."""
        return bool(self._facts[0])

    @property
    def forced(self) -> int:
        """How many columns and channels were taken at once when it was settled, as the penalty had not."""
        return int(self._facts[1])

    @property
    def rounded(self) -> int:
        """How many more were taken then, to come to numbers that run well."""
        return int(self._facts[2])

    def dead(self) -> dict[str, list[int]]:
        """By the first layer of each group, which of its channels are dead."""
        alive = self._alive.cpu().numpy().astype(bool)
        return {group.name: np.flatnonzero(~alive[group.units]).tolist() for group in self._groups}

    def block(self, name: str) -> LowRankBlock:
        """The block of a layer, behind its normalisation."""
        block, norm = self.layers[name].block(), self._norm(name)
        return block if norm is None else LowRankBlock(block.basis, block.coefficients * norm.scale().detach()[:, None])

    @torch.no_grad()
    def step(self, rate: float, step: int, steps: int) -> bool:
        """The proximal step after step number ``step`` of ``steps``, taken with the learning rate ``rate``.

        Says whether an average of the weights is to begin anew, which it does with every measurement of responses and
        when all is settled: earlier weights are of another network.
        """
        for layer in self.layers.values():
            layer.retract()
        if self.settled:
            self._silence()
            return False
        if fresh := (step - 1) % EVERY == 0:
            self._measure(first=step == 1)
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
        """Zeros what makes dead channels in the weights as they are now, such as an average of earlier ones."""
        self._silence()

    def _open(self, layers: Sequence[Layer]) -> dict[str, AwareLayer]:
        """Blocks in place of the weights of all layers that can have one."""
        found: dict[str, tuple[OperatorModule, Layout]] = {}
        for layer in layers:
            operator = self._operator(layer.name)
            if operator is None or layer.frozen_reason is not None or layer.groups > 1 or layer.geometry.transposed:
                continue
            if min(layer.kernel_shape[0], math.prod(layer.kernel_shape[1:])) < 2 or layer.node.op_type == "MatMul":
                continue
            rows = layer.node.attributes.get_int("transB", 0) == 1
            found[layer.name] = operator, "kernel" if layer.kind == "conv" else "rows" if rows else "columns"
        seen = covariances(self._module, {name: operator for name, (operator, _) in found.items()}, self._images)
        return {name: AwareLayer(operator, layout, seen[name]) for name, (operator, layout) in found.items()}

    @torch.no_grad()
    def _silent(self, groups: Sequence[Group]) -> list[Group]:
        """Those whose channels arrive as zeros at all layers that read them when what makes them is zero.

        A sigmoid, say, makes something of nothing: its readers would miss it.
        """
        kept = [entries.tensor.clone() for entries in self._entries]
        alive = torch.ones(len(self._alive), device=self._alive.device)
        for group in groups:
            alive[self._index(group.units)] = 0
        for entries, roots in zip(self._entries, self._roots, strict=True):
            entries.scale(alive[roots])
        readers = {name: self._part(name) for group in groups for name in group.readers}
        read = read_by(self._module, readers, self._images[:2])
        for entries, tensor in zip(self._entries, kept, strict=True):
            entries.tensor.copy_(tensor)
        return [group for group in groups if all(self._reads_nothing(group, name, read) for name in group.readers)]

    def _reads_nothing(self, group: Group, reader: str, read: Mapping[str, Tensor]) -> bool:
        mine = np.isin(group.readers[reader], group.units)
        return reader in read and not read[reader].cpu().numpy()[mine].any()

    def _row_share(self, group: Group, costs: Sequence[str]) -> float:
        whole, without = self._structure.costs(set()), self._structure.costs({int(group.units[0])})
        return sum((whole[cost] - without[cost]) / whole[cost] for cost in costs) / len(costs)

    def _measure(self, *, first: bool) -> None:
        """Looks at what layers make of the images, and what the outputs would lose; sizes begin with a mean of one."""
        measure_responses(self._module, self.layers, self._images)
        columns, rows = losses(self._module, self.layers, self._makers, self._images)
        for name, layer in self.layers.items():
            norms = layer.basis.flatten(1).norm(dim=1).clamp_min(1e-30)
            layer.kernel.worth.copy_(columns.get(name, torch.zeros_like(norms)) / norms)
        for name, part in self._makers.items():
            outputs = self._outputs(name)
            cast(Tensor, part.edp_worth).copy_(rows.get(name, torch.zeros_like(outputs)) / outputs.clamp_min(1e-30))
        shared = [*(x.kernel.worth for x in self.layers.values()), *(p.edp_worth for p in self._makers.values())]
        if dist.is_initialized():
            # Processes must not decide differently, and gradients may differ in their last bits.
            for tensor in shared:
                dist.broadcast(cast(Tensor, tensor), 0)
        if first:
            sizes = torch.cat([*self._column_sizes().values(), *self._row_sizes().values()])
            self._unit.copy_(sizes.square().mean().sqrt().clamp_min(1e-30))

    def _column_sizes(self) -> dict[str, Tensor]:
        """Sizes [r] of each layer's columns, 0 for dead ones."""
        worths = {name: layer.kernel.worth * layer.kernel.columns for name, layer in self.layers.items()}
        return {n: x.basis.flatten(1).norm(dim=1) * worths[n] / self._unit for n, x in self.layers.items()}

    def _row_sizes(self) -> dict[str, Tensor]:
        """Sizes [n] of each group's channels, over all layers that make them; 0 for dead ones."""
        found = {}
        for group in self._groups:
            squares = torch.zeros(len(group.units), device=self._alive.device)
            for name in group.layers:
                each = self._outputs(name) * cast(Tensor, self._makers[name].edp_worth)
                squares += each[self._index(group.made[name])].square()
            found[group.name] = squares.sqrt() / self._unit * self._alive[self._index(group.units)]
        return found

    def _outputs(self, name: str) -> Tensor:
        """How much each output [F] of a layer varies; of a layer without a block, the norm of its weights."""
        if (norm := self._norm(name)) is not None:
            return norm.gain.detach().abs()
        if name in self.layers:
            return self._deviation(self.layers[name])
        return next(e.norms() for e in self._entries if e.layer == name and e.name == "weight")

    @staticmethod
    def _deviation(layer: AwareLayer) -> Tensor:
        """Standard deviation [F] of a block's outputs if its responses are uncorrelated, which they are at first."""
        return (layer.block().coefficients * layer.deviations()).norm(dim=1)

    def _factors(self, strength: float) -> tuple[dict[str, Tensor], Tensor]:
        """What the proximal step with penalties of ``strength`` times each group's share multiplies columns [r] of each
        layer and channels [units] with.
        """
        columns = {}
        for name, sizes in self._column_sizes().items():
            shrunk = shrinkage(sizes, torch.full_like(sizes, strength * self._column_shares[name]))
            columns[name] = spare(shrunk, sizes, self.layers[name].kernel.columns.bool())
        rows = torch.ones(len(self._alive), device=self._alive.device)
        for group, sizes in zip(self._groups, self._row_sizes().values(), strict=True):
            units = self._index(group.units)
            alive = self._alive[units].bool()
            shrunk = shrinkage(sizes, torch.full_like(sizes, strength * self._row_shares[group.name]))
            rows[units] = torch.where(alive, spare(shrunk, sizes, alive, group.parts), 1.0)
        return columns, rows

    def _surviving(self, columns: Mapping[str, Tensor], rows: Tensor) -> Selection:
        """What is alive after a proximal step."""
        alive, ranks = self._selection()
        return alive * (rows > 0), {name: ranks[name] * (factors > 0) for name, factors in columns.items()}

    def _shrink(self, columns: Mapping[str, Tensor], rows: Tensor, left: Selection) -> None:
        """Takes the proximal step, which leaves ``left`` alive."""
        for name, factors in columns.items():
            layer = self.layers[name]
            before = self._deviation(layer)
            layer.basis.mul_(factors[:, None, None, None])
            layer.kernel.columns.copy_(left[1][name])
            self._follow(name, before)
        for entries, roots in zip(self._entries, self._roots, strict=True):
            if entries.makes:
                entries.scale(rows[roots])
        self._alive.copy_(left[0])

    def _follow(self, name: str, before: Tensor) -> None:
        """Has the normalisation behind a layer follow its coefficients; ``before`` [F] were its outputs' deviations.

        The normalisation would take the shrinkage back: what a channel has lost of its deviation, its gain loses. Then
        rows get back what they had, which changes nothing, so that steps do not turn shorter and shorter rows further
        and further.
        """
        norm, layer = self._norm(name), self.layers[name]
        if norm is None:
            return
        lost = self._deviation(layer) / before.clamp_min(1e-30)
        longer = torch.where(lost > 0, 1 / lost.clamp_min(1e-30), 1.0).clamp_max(LONGER)
        norm.gain.mul_(lost)
        layer.coefficients.mul_(longer[:, None])
        if (bias := getattr(layer.operator, "bias", None)) is not None:
            bias.mul_(longer)
        norm.mean.mul_(longer)
        norm.variance.mul_((longer * lost).square())

    def _settle(self, left: Selection) -> None:
        """Ends the penalty: what the budget wants goes, in the order of size for share of the cost. The step that this
        is in the place of would leave ``left``.
        """
        columns = {name: sizes / self._column_shares[name] ** 0.5 for name, sizes in self._column_sizes().items()}
        rows = {name: sizes / self._row_shares[name] ** 0.5 for name, sizes in self._row_sizes().items()}
        taken, settled = self._settling.settle(self._selection(), (columns, rows))
        self._alive.copy_(settled[0])
        for name, layer in self.layers.items():
            # What gets up again begins with nothing: momentum has gone on since.
            layer.basis.mul_(layer.kernel.columns[:, None, None, None])
            layer.kernel.columns.copy_(settled[1][name])
        self._facts.copy_(torch.tensor([1, lost(left, taken), lost(taken, settled)]))

    def _selection(self) -> Selection:
        return self._alive.clone(), {name: layer.kernel.columns.clone() for name, layer in self.layers.items()}

    def _silence(self) -> None:
        """Keeps at zero what makes dead channels."""
        alive = self._alive.cpu()
        if bool(alive.all()):
            return
        for entries in self._entries:
            if not bool((mine := alive[entries.roots]).all()):
                entries.scale(mine.to(self._alive.device))

    def _operator(self, name: str) -> OperatorModule | None:
        part = self._part(name)
        part = part.layer if isinstance(part, Normalised) else part
        return part if isinstance(part, OperatorModule) and "weight" in part.names else None

    def _part(self, name: str) -> nn.Module:
        return self._module.get_submodule(self._module.layers[name])

    def _norm(self, name: str) -> FoldableNorm | None:
        """The normalisation behind a layer, which has one gain for each channel: nothing is factorized."""
        part = self._part(name)
        return part.norm if isinstance(part, Normalised) else None

    def _index(self, places: np.ndarray) -> Tensor:
        """``places``, of a group, on the device, where they stay."""
        if id(places) not in self._places:
            self._places[id(places)] = places, torch.from_numpy(places).to(self._alive.device)
        return self._places[id(places)][1]

    @property
    def _alive(self) -> Tensor:
        return cast(Tensor, self._module.edp_alive)

    @property
    def _strength(self) -> Tensor:
        return cast(Tensor, self._module.edp_strength)

    @property
    def _unit(self) -> Tensor:
        return cast(Tensor, self._module.edp_unit)

    @property
    def _facts(self) -> Tensor:
        return cast(Tensor, self._module.edp_facts)
