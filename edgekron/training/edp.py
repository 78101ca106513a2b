"""EDP's one training stage: low rank and sparse channels learnt together, down to a budget.

Source: Ruan et al., *EDP* (IEEE TNNLS 2021), whose blocks and proximal steps are in ``edgekron.pruning.edp``; what its
text leaves open is decided here. Each layer without groups gets a block (``aware_kernel``). After every step on the
loss comes the proximal step of

    strength * sum over columns and channels g of share(g) * size(g)

``size`` is how much g contributes to its layer's outputs, in units of the layer's mean: of a column of coefficients
the deviation of what its filter makes of the images, times the column's norm behind the batch normalisation; of an
output channel its deviation, which behind a batch normalisation is its gain. Norms of weights would say nothing there:
the normalisation takes any scale back. ``share`` is the share of the network's cost that g stands for, in units of the
mean share.

The strength is a controller's: it grows while the network costs more than a straight line from all to the budget
allows, and falls while it costs less. The line ends at ``SETTLE`` of the training. There, or as soon as the budget is
met, what is dead is settled: numbers of channels and ranks are lowered to ones that run well, the penalty ends, and the
rest of the training is spent on what is left. What the penalty has not taken by then, the same order takes at once.

A channel whose size is zero makes zero from then on: its gain and its shift are kept at zero, and those of depthwise
layers behind it. So it can be removed, and nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from edgekron.errors import UserError
from edgekron.graph import Hub, Layer
from edgekron.pruning import Group, Structure
from edgekron.pruning.edp import Block, shrinkage
from edgekron.pruning.quotas import LEAST

from .aware_kernel import AwareLayer, Layout
from .edp_budget import Budget
from .foldable_norm import FoldableNorm
from .graph_module import GraphModule
from .node_modules import Normalised, Operator

#: Share of the training after which nothing more is taken.
SETTLE = 0.6
#: What a group of mean share would lose of its size until then if the strength stayed as it begins; by which power of
#: e it may change, and the excess of cost at which it changes fastest.
START, RANGE, SLACK = 0.1, 10.0, 0.02
#: How much longer a row may become in one step that gets its length back.
LONGER = 2.0
#: Images that responses are measured on, and steps after which they are measured again.
IMAGES, EVERY = 256, 200


@dataclass(frozen=True)
class _Entries:
    """A tensor with entries of channels along an axis; ``roots`` [n] of these channels.

    ``makes`` says that the channels are made there, and not only carried on, as in a depthwise layer.
    """

    tensor: Tensor
    axis: int
    roots: Tensor
    makes: bool

    def scale(self, factors: Tensor) -> None:
        """Multiplies the entries by ``factors`` [n]."""
        self.tensor.mul_(factors.view([-1 if a == self.axis else 1 for a in range(self.tensor.ndim)]))


class CompressedAware:
    """Opens the blocks of ``module``, a ``GraphModule`` of ``hub``, and takes them down to ``ratios``.

    ``ratios`` maps "macs" or "parameters" to how many times fewer there are to be; ``images`` [N, C, H, W] show what
    the layers make of them. ``step`` comes after each step of an optimiser whose highest rate is ``learning_rate``.
    All state is in buffers of the module.
    Raises ``UserError`` for a network that is compressed already, and where there is nothing to learn.
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
            raise UserError("this network is compressed already; edp begins with one that is not.")
        self._module, self._ratios, self._images = module, dict(ratios), images[:IMAGES]
        self._learning_rate = learning_rate
        self._structure = Structure(hub)
        self._groups = [group for group in self._structure.groups if group.reason is None]
        self.layers = self._open(layers)
        if not self._groups and not self.layers:
            raise UserError("edp finds no layer in this network whose rank or channels it could learn.")
        ranks = {name: len(layer.kernel.columns) for name, layer in self.layers.items()}
        self._budget = Budget(self._structure, layers, ranks, any_width=any_width)
        units = 1 + max((int(roots.max()) for _, roots in self._known_roots()), default=0)
        device = images.device
        module.register_buffer("edp_alive", torch.ones(units, dtype=torch.uint8, device=device))
        module.register_buffer("edp_strength", torch.zeros(1, dtype=torch.float64, device=device))
        #: [whether all is settled, how many columns and channels were not taken by the penalty]
        module.register_buffer("edp_facts", torch.zeros(2, dtype=torch.int64, device=device))
        self._entries = list(self._find_entries(layers))
        costs = tuple(ratios)
        columns = {name: self._budget.column_share(name, costs) for name in self.layers}
        rows = {group.name: self._row_share(group, costs) for group in self._groups}
        counts = [ranks[name] for name in columns] + [len(group.units) for group in self._groups]
        mean = float(np.average([*columns.values(), *rows.values()], weights=counts))
        self._column_shares = {name: share / mean for name, share in columns.items()}
        self._row_shares = {name: share / mean for name, share in rows.items()}
        self._check_reach()

    @property
    def settled(self) -> bool:
        """Whether nothing more will be taken."""
        return bool(self._facts[0])

    @property
    def forced(self) -> int:
        """How many columns and channels the penalty had not taken when it had to be settled."""
        return int(self._facts[1])

    def dead(self) -> dict[str, list[int]]:
        """By the first layer of each group, which of its channels are dead."""
        alive = self._alive.cpu().numpy().astype(bool)
        return {group.name: np.flatnonzero(~alive[group.units]).tolist() for group in self._groups}

    def block(self, name: str) -> Block:
        """The block of a layer, behind its normalisation."""
        block = self.layers[name].block()
        return Block(block.basis, block.coefficients * self._scale(name)[:, None])

    @torch.no_grad()
    def step(self, rate: float, step: int, steps: int) -> bool:
        """The proximal step after step number ``step`` of ``steps``, taken with the learning rate ``rate``.

        Says whether it settled what is dead: averages of earlier weights are of another network.
        """
        for layer in self.layers.values():
            layer.retract()
        if self.settled:
            self._silence()
            return False
        if (step - 1) % EVERY == 0:
            self._measure()
        end = max(1.0, SETTLE * steps)
        excess = self._excess(min(1.0, step / end))
        if step == 1:
            self._strength.fill_(START / (self._learning_rate * end))
        self._strength.mul_(math.exp(RANGE / end * max(-1.0, min(1.0, excess / SLACK))))
        self._shrink(float(self._strength) * rate)
        if self._excess(1.0) <= 0:
            self._settle()
        elif step >= end:
            self._force()
            self._settle()
        self._silence()
        for layer in self.layers.values():
            layer.balance()
        return self.settled

    def _open(self, layers: Sequence[Layer]) -> dict[str, AwareLayer]:
        """Blocks in place of the weights of all layers that can have one."""
        found: dict[str, tuple[Operator, Layout]] = {}
        for layer in layers:
            operator = self._operator(layer.name)
            if operator is None or layer.frozen_reason is not None or layer.groups > 1 or layer.geometry.transposed:
                continue
            if min(layer.kernel_shape[0], math.prod(layer.kernel_shape[1:])) < 2 or layer.node.op_type == "MatMul":
                continue
            rows = layer.node.attributes.get_int("transB", 0) == 1
            found[layer.name] = operator, "kernel" if layer.kind == "conv" else "rows" if rows else "columns"
        covariances = self._covariances({name: operator for name, (operator, _) in found.items()})
        return {name: AwareLayer(operator, layout, covariances[name]) for name, (operator, layout) in found.items()}

    @torch.no_grad()
    def _covariances(self, operators: Mapping[str, Operator]) -> dict[str, Tensor]:
        """Covariance [F, F] of each layer's outputs."""
        sums: dict[str, tuple[Tensor, Tensor, int]] = {}

        def hook(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  torch calls it
            def add(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                y = output.transpose(0, 1).flatten(1).double()
                old = sums.get(name, (0, 0, 0))
                sums[name] = old[0] + y @ y.mT, old[1] + y.sum(1), old[2] + y.shape[1]

            return add

        self._look([operator.register_forward_hook(hook(name)) for name, operator in operators.items()])
        return {name: xx / n - torch.outer(x / n, x / n) for name, (xx, x, n) in sums.items()}

    @torch.no_grad()
    def _measure(self) -> None:
        """What the blocks' bases make of the images as they are now."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.layers}

        def hook(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  torch calls it
            def add(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                found[name].append(self.layers[name].responses(inputs[0]))

            return add

        self._look([x.operator.register_forward_pre_hook(hook(name)) for name, x in self.layers.items()])
        for name, layer in self.layers.items():
            layer.kernel.spread.copy_(torch.stack(found[name]).square().mean(0).sqrt())

    def _look(self, handles: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
        """Shows the images to the module, as it is in use, and takes the hooks away."""
        training = self._module.training
        self._module.eval()
        for piece in self._images.split(64):
            self._module(piece)
        self._module.train(training)
        for handle in handles:
            handle.remove()

    def _find_entries(self, layers: Sequence[Layer]) -> Iterator[_Entries]:
        """Every trained tensor whose entries make channels that can be removed."""
        channels, taken = self._structure.channels, set()
        for layer in layers:
            outputs = channels.layers.get(layer.name, (None, None))[1]
            if outputs is None:
                continue
            roots, makes = self._index(channels.roots(outputs)), layer.name in channels.makers
            if (norm := self._norm(layer.name)) is not None:
                yield from (_Entries(tensor.data, 0, roots, makes) for tensor in (norm.gain, norm.shift))
                taken.add(layer.name)
            elif layer.name in self.layers:
                yield _Entries(self.layers[layer.name].coefficients.data, 0, roots, makes)
        named = {
            name: (module, key)
            for module in self._module.modules()
            if isinstance(module, Operator)
            for key, name in module.names.items()
        }
        for axis in channels.axes:
            value = axis.node.inputs[axis.index]
            place = named.get(str(value.name)) if value is not None else None
            if not axis.makes or place is None or channels.names.get(axis.node) in taken:
                continue
            tensor = place[0].__dict__["_parameters"].get(place[1])
            if tensor is not None:
                makes = channels.names.get(axis.node) in channels.makers
                yield _Entries(tensor.data, axis.axis, self._index(channels.roots(axis.units)), makes)

    def _known_roots(self) -> Iterator[tuple[str, np.ndarray]]:
        channels = self._structure.channels
        for name, pair in channels.layers.items():
            yield from ((name, channels.roots(units)) for units in pair if units is not None)

    def _row_share(self, group: Group, costs: Sequence[str]) -> float:
        whole, without = self._structure.costs(set()), self._structure.costs({int(group.units[0])})
        return sum((whole[cost] - without[cost]) / whole[cost] for cost in costs) / len(costs)

    def _column_sizes(self) -> dict[str, Tensor]:
        """Sizes [r] of each layer's columns, 0 for dead ones."""
        found = {}
        for name, layer in self.layers.items():
            block = self.block(name)
            sizes = block.coefficients.norm(dim=0) * layer.deviations()
            found[name] = sizes / sizes.square().mean().sqrt().clamp_min(1e-30)
        return found

    def _row_sizes(self) -> dict[str, Tensor]:
        """Sizes [n] of each group's channels, over all layers that make them; 0 for dead ones."""
        found = {}
        for group in self._groups:
            total = torch.zeros(len(group.units), device=self._alive.device)
            for name in group.layers:
                squares = self._outputs(name)[self._index(group.made[name])].square()
                total += squares / squares.mean().clamp_min(1e-30)
            found[group.name] = (total / len(group.layers)).sqrt() * self._alive[self._index(group.units)]
        return found

    def _outputs(self, name: str) -> Tensor:
        """How much each output [F] of a layer varies."""
        if (norm := self._norm(name)) is not None:
            return norm.gain.abs()
        if name in self.layers:
            return self._deviation(self.layers[name])
        return cast(Tensor, self._part(name).weight).flatten(1).norm(dim=1)

    def _scale(self, name: str) -> Tensor:
        """What the normalisation behind a layer multiplies its outputs [F] with."""
        if (norm := self._norm(name)) is not None:
            return norm.scale().detach()
        layer = self.layers[name]
        return torch.ones(len(layer.coefficients), device=layer.coefficients.device)

    def _shrink(self, strength: float) -> None:
        for name, sizes in self._column_sizes().items():
            layer = self.layers[name]
            factors = shrinkage(sizes, torch.full_like(sizes, strength * self._column_shares[name]))
            alive = layer.kernel.columns.bool()
            factors = _spare(factors, sizes, alive)
            before = self._deviation(layer)
            layer.basis.mul_(factors[:, None, None, None])
            layer.kernel.columns.copy_(alive & (factors > 0))
            self._follow(name, before)
        factors = torch.ones(len(self._alive), device=self._alive.device)
        for group, sizes in zip(self._groups, self._row_sizes().values(), strict=True):
            units = self._index(group.units)
            alive = self._alive[units].bool()
            shrunk = shrinkage(sizes, torch.full_like(sizes, strength * self._row_shares[group.name]))
            factors[units] = torch.where(alive, _spare(shrunk, sizes, alive, group.parts), 1.0)
        for entries in self._entries:
            if entries.makes:
                entries.scale(factors[entries.roots])
        self._alive.mul_(factors > 0)

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

    @staticmethod
    def _deviation(layer: AwareLayer) -> Tensor:
        """Standard deviation [F] of a block's outputs if its responses are uncorrelated, which they are at first."""
        return (layer.block().coefficients * layer.deviations()).norm(dim=1)

    def _excess(self, progress: float) -> float:
        """How much more of the dense costs the network has than it may at ``progress`` of the way to the budget."""
        shares = self._budget.shares(self._alive.cpu().numpy().astype(bool), self._ranks())
        return max(shares[unit] - (1 - (1 - 1 / ratio) * progress) for unit, ratio in self._ratios.items())

    def _ranks(self) -> dict[str, int]:
        return {name: int(layer.kernel.columns.sum()) for name, layer in self.layers.items()}

    def _force(self) -> None:
        """Takes the smallest for their share of the cost, just as many as the budget wants."""
        columns = {name: sizes / self._column_shares[name] for name, sizes in self._column_sizes().items()}
        rows = {name: sizes / self._row_shares[name] for name, sizes in self._row_sizes().items()}
        levels = torch.cat([*columns.values(), *rows.values()]).sort().values
        before = self._alive.clone(), {name: layer.kernel.columns.clone() for name, layer in self.layers.items()}
        low, high = 0, len(levels) - 1
        while low <= high:
            middle = (low + high) // 2
            self._alive.copy_(before[0])
            for name, layer in self.layers.items():
                layer.kernel.columns.copy_(before[1][name])
            self._take(columns, rows, float(levels[middle]))
            if self._excess(1.0) <= 0:
                high = middle - 1
            else:
                low = middle + 1
        if self._excess(1.0) > 0 and low < len(levels):
            self._take(columns, rows, float(levels[low]))
        taken = before[0].sum() - self._alive.sum()
        taken = taken + sum(old.sum() - self.layers[name].kernel.columns.sum() for name, old in before[1].items())
        self._facts[1] = int(taken)

    def _take(self, columns: Mapping[str, Tensor], rows: Mapping[str, Tensor], level: float) -> None:
        """Takes all columns and channels up to ``level``."""
        for name, sizes in columns.items():
            alive = self.layers[name].kernel.columns
            alive.copy_(alive * (_spare((sizes > level).float(), sizes, alive.bool()) > 0))
        for group in self._groups:
            units, sizes = self._index(group.units), rows[group.name]
            alive = self._alive[units].bool()
            self._alive[units] *= _spare((sizes > level).float(), sizes, alive, group.parts) > 0

    def _settle(self) -> None:
        """Lowers what is left to numbers that run well; ranks only where a pair is left of the block."""
        for group, sizes in zip(self._groups, self._row_sizes().values(), strict=True):
            units = self._index(group.units)
            count = int(self._alive[units].sum())
            less = torch.topk(sizes, self._budget.round(count)).indices
            kept = torch.zeros_like(sizes, dtype=torch.uint8)
            kept[less] = 1
            for part in group.parts:
                kept[part[int(sizes[part].argmax())]] = 1
            self._alive[units] *= kept
        alive = self._alive.cpu().numpy().astype(bool)
        for name, sizes in self._column_sizes().items():
            columns = self.layers[name].kernel.columns
            rank = self._budget.round(int(columns.sum()))
            if self._budget.ends_as_pair(name, alive, rank):
                kept = torch.zeros_like(columns)
                kept[torch.topk(sizes, rank).indices] = 1
                columns.mul_(kept)
        self._facts[0] = 1

    def _silence(self) -> None:
        """Keeps at zero what makes dead channels."""
        if bool(self._alive.all()):
            return
        for entries in self._entries:
            alive = self._alive[entries.roots]
            if not bool(alive.all()):
                entries.scale(alive.to(entries.tensor.dtype))

    def silence(self) -> None:
        """Zeros what makes dead channels in the weights as they are now, such as an average of earlier ones."""
        with torch.no_grad():
            self._silence()

    def _check_reach(self) -> None:
        """Raises ``UserError`` where even the least that can be left costs too much."""
        alive = np.ones(len(self._alive), bool)
        for group in self._groups:
            alive[group.units[math.ceil(LEAST * len(group.units)) :]] = False
        ranks = {name: math.ceil(LEAST * rank) for name, rank in self._ranks().items()}
        least = self._budget.shares(alive, ranks)
        for unit, ratio in self._ratios.items():
            if ratio * least[unit] > 1:
                raise UserError(
                    f"edp cannot reach {ratio:g} times fewer {'MACs' if unit == 'macs' else unit}; the best that this "
                    f"network can is {1 / least[unit]:.2f} times."
                )

    def _operator(self, name: str) -> Operator | None:
        part = self._part(name)
        part = part.layer if isinstance(part, Normalised) else part
        return part if isinstance(part, Operator) and "weight" in part.names else None

    def _part(self, name: str) -> nn.Module:
        return self._module.get_submodule(self._module.layers[name])

    def _norm(self, name: str) -> FoldableNorm | None:
        """The normalisation behind a layer, which has one gain for each channel: nothing is factorized."""
        part = self._part(name)
        return part.norm if isinstance(part, Normalised) else None

    def _index(self, places: np.ndarray) -> Tensor:
        return torch.from_numpy(places).to(self._images.device)

    @property
    def _alive(self) -> Tensor:
        return cast(Tensor, self._module.edp_alive)

    @property
    def _strength(self) -> Tensor:
        return cast(Tensor, self._module.edp_strength)

    @property
    def _facts(self) -> Tensor:
        return cast(Tensor, self._module.edp_facts)


def _spare(factors: Tensor, sizes: Tensor, alive: Tensor, parts: Sequence[np.ndarray] = ()) -> Tensor:
    """``factors`` [n] with 1 instead of 0 for the largest, so that ``LEAST`` of them stay, and one of each part."""
    least = math.ceil(LEAST * len(factors))
    left = alive & (factors > 0)
    if int(left.sum()) >= least and all(bool(left[part].any()) for part in parts):
        return factors
    spared = factors.clone()
    spared[torch.topk(torch.where(alive, sizes, -1.0), least).indices] = 1
    for part in parts:
        spared[part[int(torch.where(alive[part], sizes[part], -1.0).argmax())]] = 1
    return spared
