"""What a network costs while EDP is at work on it: for the channels and ranks that are alive.

A layer with a block of rank r costs as a pair, or as the layer they multiply out to, whichever is less. Channels and
ranks count as the number that runs well below them (``edgekron.ranks.rounded``), for that is where they will end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekron.ranks import rounded

if TYPE_CHECKING:
    from edgekron.graph import Layer
    from edgekron.pruning import Structure


@dataclass(frozen=True)
class _Cost:
    """A layer's dense costs, the roots of its channels, its sizes, and the full rank of its block, 0 for none."""

    dense: Mapping[str, int]
    inputs: np.ndarray | None
    outputs: np.ndarray | None
    taps: int
    filters: int
    rank: int


class Budget:
    """Costs of a network, as shares of what it costs dense.

    ``full_ranks`` gives the full rank of each layer that has a block. ``any_width`` leaves all numbers as they are.
    """

    def __init__(
        self, structure: Structure, layers: list[Layer], full_ranks: Mapping[str, int], *, any_width: bool
    ) -> None:
        self.round: Callable[[int], int] = int if any_width else rounded
        self._groups = [group.units for group in structure.groups if group.reason is None]
        self._costs: dict[str, _Cost] = {}
        for layer in layers:
            inputs, outputs = structure.channels.layers.get(layer.name, (None, None))
            f, *rest = layer.kernel_shape if layer.kernel is not None else (1, 1)
            self._costs[layer.name] = _Cost(
                {"macs": layer.dense_macs, "parameters": layer.dense_parameters},
                None if inputs is None else structure.channels.roots(inputs),
                None if outputs is None else structure.channels.roots(outputs),
                math.prod(rest),
                f,
                full_ranks.get(layer.name, 0),
            )
        self._dense = {unit: sum(cost.dense[unit] for cost in self._costs.values()) for unit in ("macs", "parameters")}

    def column_share(self, name: str, costs: tuple[str, ...]) -> float:
        """Share of ``costs`` that one column of a layer's block stands for, in the network as it began."""
        one = self._costs[name]
        per_column = (one.taps + one.filters) / (one.taps * one.filters)
        return sum(one.dense[unit] * per_column / self._dense[unit] for unit in costs) / len(costs)

    def shares(self, alive: np.ndarray, ranks: Mapping[str, int]) -> dict[str, float]:
        """Costs as shares of the dense ones; ``alive`` [units] says which units are, ``ranks`` how many columns."""
        width = alive.astype(np.float64)
        for units in self._groups:
            count = int(alive[units].sum())
            width[units] *= self.round(count) / max(count, 1)
        totals = dict.fromkeys(self._dense, 0.0)
        for name, one in self._costs.items():
            reads = 1.0 if one.inputs is None else float(width[one.inputs].mean())
            makes = 1.0 if one.outputs is None else float(width[one.outputs].mean())
            share = reads * makes
            if one.rank:
                rank = self.round(ranks[name])
                taps, filters = one.taps * reads, one.filters * makes
                share = min(share, rank * (taps + filters) / (one.taps * one.filters))
            for unit in totals:
                totals[unit] += one.dense[unit] * share
        return {unit: total / self._dense[unit] for unit, total in totals.items()}

    def ends_as_pair(self, name: str, alive: np.ndarray, rank: int) -> bool:
        """Whether a layer's block of ``rank`` has fewer MACs than the layer it multiplies out to."""
        one = self._costs[name]
        reads, makes = (1.0 if roots is None else float(alive[roots].mean()) for roots in (one.inputs, one.outputs))
        taps, filters = one.taps * reads, one.filters * makes
        return rank * (taps + filters) < taps * filters
