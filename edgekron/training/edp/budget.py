"""Costs of a network while EDP is at work: those of the channels and ranks that are alive.

A layer with a block of rank r costs as much as the pair of the block's two layers, or as the one layer that they
multiply out to, whichever is less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekron.planning.ranks import raised, rounded

from .blocks import worth_a_pair

if TYPE_CHECKING:
    from edgekron.graph import Layer
    from edgekron.pruning import ChannelStructure, Group


@dataclass(frozen=True)
class _Cost:
    """A layer's dense costs, the roots of its channels, its kernel's shape, and its block's full rank, 0 for none."""

    dense: Mapping[str, int]
    inputs: np.ndarray | None
    outputs: np.ndarray | None
    shape: tuple[int, int, int]
    rank: int

    def left(self, width: np.ndarray) -> tuple[float, float]:
        """How many inputs and outputs are left; ``width`` [units] says how much of each unit is."""
        filters, channels, _ = self.shape
        reads = channels if self.inputs is None else channels * float(width[self.inputs].mean())
        makes = filters if self.outputs is None else filters * float(width[self.outputs].mean())
        return reads, makes

    def share(self, width: np.ndarray, rank: int) -> float:
        """The layer's cost as a share of its dense one."""
        filters, channels, window = self.shape
        reads, makes = self.left(width)
        whole, dense = reads * makes * window, filters * channels * window
        return min(whole, rank * (reads * window + makes) if self.rank else whole) / dense


class EdpBudget:
    """Costs of a network, as shares of the costs of the dense network.

    ``groups`` are those whose channels may go; ``full_ranks`` has the number of columns of each layer that has a block.
    ``any_width`` leaves all numbers of channels and ranks as they are.
    """

    def __init__(
        self,
        structure: ChannelStructure,
        groups: list[Group],
        layers: list[Layer],
        full_ranks: Mapping[str, int],
        *,
        any_width: bool,
    ) -> None:
        self._structure, self._groups, self._full_ranks = structure, groups, dict(full_ranks)
        self._any_width = any_width
        self._costs: dict[str, _Cost] = {}
        for layer in layers:
            inputs, outputs = structure.channels.layers.get(layer.name, (None, None))
            filters, channels, *window = layer.kernel_shape if layer.has_kernel else (1, 1, 1)
            self._costs[layer.name] = _Cost(
                {"macs": layer.dense_macs, "parameters": layer.dense_parameters},
                None if inputs is None else structure.channels.roots(inputs),
                None if outputs is None else structure.channels.roots(outputs),
                (filters, channels, math.prod(window)),
                full_ranks.get(layer.name, 0),
            )
        self._dense = {unit: sum(cost.dense[unit] for cost in self._costs.values()) for unit in ("macs", "parameters")}

    def below(self, count: int, full: int) -> int:
        """The largest number that runs well at or below ``count``; ``full``, which has lost nothing, stays as it is."""
        return count if self._any_width or count == full else rounded(count)

    def near(self, count: int, full: int) -> int:
        """The number that runs well nearest to ``count``, the lower of two; ``full`` stays as it is."""
        below = self.below(count, full)
        if below == count:
            return count
        above = raised(count, full)
        return above if above - count < count - below else below

    def group_shares(self, costs: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
        """The shares of ``costs`` that a column of each block and a channel of each group stand for, by name.

        Costs are those of the network as it began; shares are relative to their mean over all columns and channels.
        """
        columns = {name: self._column_share(name, costs) for name in self._full_ranks}
        rows = {group.name: self._row_share(group, costs) for group in self._groups}
        counts = [*self._full_ranks.values(), *(len(group.units) for group in self._groups)]
        mean = float(np.average([*columns.values(), *rows.values()], weights=counts))
        return {name: share / mean for name, share in columns.items()}, {n: share / mean for n, share in rows.items()}

    def _column_share(self, name: str, costs: tuple[str, ...]) -> float:
        one = self._costs[name]
        filters, channels, window = one.shape
        per_column = (channels * window + filters) / (channels * window * filters)
        return sum(one.dense[unit] * per_column / self._dense[unit] for unit in costs) / len(costs)

    def _row_share(self, group: Group, costs: tuple[str, ...]) -> float:
        whole, without = self._structure.costs(set()), self._structure.costs({int(group.units[0])})
        return sum((whole[cost] - without[cost]) / whole[cost] for cost in costs) / len(costs)

    def shares(self, alive: np.ndarray, ranks: Mapping[str, int]) -> dict[str, float]:
        """Costs as shares of the dense ones; ``alive`` [units] says which units are, ``ranks`` how many columns."""
        return self._shares(alive.astype(np.float64), ranks)

    def expected(self, alive: np.ndarray, ranks: Mapping[str, int]) -> dict[str, float]:
        """``shares`` with all numbers of channels and ranks moved to numbers that run well.

        Which channels will go is unknown. A column that is dead can get up again, so ranks move to the nearest number;
        a channel cannot, because nothing would reach it behind a ReLU.
        """
        width = alive.astype(np.float64)
        for group in self._groups:
            count = int(alive[group.units].sum())
            width[group.units] *= self.below(count, len(group.units)) / max(count, 1)
        return self._shares(width, {name: self.near(rank, self._costs[name].rank) for name, rank in ranks.items()})

    def _shares(self, width: np.ndarray, ranks: Mapping[str, int]) -> dict[str, float]:
        shares = {name: one.share(width, ranks.get(name, 0)) for name, one in self._costs.items()}
        return {
            unit: sum(one.dense[unit] * shares[name] for name, one in self._costs.items()) / dense
            for unit, dense in self._dense.items()
        }

    def ends_as_pair(self, name: str, alive: np.ndarray, rank: int) -> bool:
        """Whether a layer's block of ``rank`` will have fewer MACs than the layer it multiplies out to."""
        reads, makes = self._costs[name].left(alive.astype(np.float64))
        return worth_a_pair(round(reads), self._costs[name].shape[2], round(makes), rank)
