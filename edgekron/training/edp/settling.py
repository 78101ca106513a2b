"""The selection of channels and columns that are left when EDP's penalty ends: within the budget, in numbers that run
well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from edgekron.errors import UserError
from edgekron.pruning import Group
from edgekron.pruning.quotas import LEAST

from .budget import EdpBudget

#: Which channels [units] and which columns [r] of each block are alive, as 0 and 1.
Selection = tuple[Tensor, dict[str, Tensor]]
#: Numbers [r] of each block's columns, and [n] of each group's channels.
Values = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]


class Settling:
    """Judges selections by a budget of ``ratios``, and finds the one that meets it.

    ``units`` are the places [n] of each group's channels on the device.
    """

    def __init__(
        self, budget: EdpBudget, ratios: Mapping[str, float], groups: Sequence[Group], units: Mapping[str, Tensor]
    ) -> None:
        self._budget, self._ratios, self._groups, self._units = budget, ratios, groups, units

    def excess(self, selection: Selection, progress: float) -> float:
        """How much more than allowed at ``progress`` of the way ``selection`` costs, as a share of the dense cost."""
        shares = self._budget.expected(selection[0].cpu().numpy().astype(bool), _ranks(selection[1]))
        return max(shares[unit] - (1 - (1 - 1 / ratio) * progress) for unit, ratio in self._ratios.items())

    def meets(self, selection: Selection) -> bool:
        """Whether a selection costs no more than the ratios allow."""
        shares = self._budget.shares(selection[0].cpu().numpy().astype(bool), _ranks(selection[1]))
        return all(shares[unit] * ratio <= 1 for unit, ratio in self._ratios.items())

    def check(self, selection: Selection) -> None:
        """Raises ``UserError`` where even the least that can be left of ``selection`` costs too much."""
        alive = np.ones(len(selection[0]), bool)
        for group in self._groups:
            alive[group.units[self._least(len(group.units)) :]] = False
        ranks = {name: self._least(len(columns)) for name, columns in selection[1].items()}
        least = self._budget.shares(alive, ranks)
        for unit, ratio in self._ratios.items():
            if ratio * least[unit] > 1:
                raise UserError(
                    f"edp cannot reach {ratio:g} times fewer {'MACs' if unit == 'macs' else unit}; the best that this "
                    f"network can is {1 / least[unit]:.2f} times."
                )

    def settle(self, alive: Selection, worth: Values) -> tuple[Selection, Selection]:
        """``alive`` without the columns and channels of the least ``worth``, as many as the budget wants to go; and the
        selection nearest to that in numbers that run well.
        """
        levels = [0.0, *torch.cat([*worth[0].values(), *worth[1].values()]).sort().values.tolist()]
        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high) // 2
            if self.meets(self._near(self._above(alive, levels[middle], worth), worth)):
                high = middle
            else:
                low = middle + 1
        taken = self._above(alive, levels[low], worth)
        return taken, self._near(taken, worth)

    def _above(self, selection: Selection, level: float, worth: Values) -> Selection:
        """``selection`` without the columns and channels whose worth is not above ``level``."""
        columns, rows = worth
        alive, ranks = selection[0].clone(), dict(selection[1])
        for name, values in columns.items():
            ranks[name] = ranks[name] * (spare((values > level).float(), values, ranks[name].bool()) > 0)
        for group in self._groups:
            units, values = self._units[group.name], rows[group.name]
            alive[units] *= spare((values > level).float(), values, alive[units].bool(), group.parts) > 0
        return alive, ranks

    def _near(self, selection: Selection, worth: Values) -> Selection:
        """As many of the largest as run well; a block that will end as one layer keeps all its columns for nothing."""
        columns, rows = worth
        alive, ranks = selection[0].clone(), {}
        for group in self._groups:
            units, values = self._units[group.name], rows[group.name]
            count = int(alive[units].sum())
            near = self._budget.near(count, len(units))
            # Channels that are zero cannot get up again: nothing would reach them behind a ReLU.
            kept = near if near <= int((values > 0).sum()) else self._budget.below(count, len(units))
            alive[units] = largest(values, kept, group.parts)
        left = alive.cpu().numpy().astype(bool)
        for name, values in columns.items():
            rank = self._budget.near(int(selection[1][name].sum()), len(values))
            pair = self._budget.ends_as_pair(name, left, rank)
            ranks[name] = largest(values, rank if pair else len(values))
        return alive, ranks

    def _least(self, count: int) -> int:
        """The least number of ``count`` that stay."""
        return self._budget.near(math.ceil(LEAST * count), count)


def lost(before: Selection, after: Selection) -> int:
    """How many columns and channels are alive before, and not after."""
    pairs = [(before[0], after[0]), *((columns, after[1][name]) for name, columns in before[1].items())]
    return sum(int((one.bool() & ~other.bool()).sum()) for one, other in pairs)


def spare(factors: Tensor, sizes: Tensor, alive: Tensor, parts: Sequence[np.ndarray] = ()) -> Tensor:
    """``factors`` [n] with 1 instead of 0 for the largest, so that ``LEAST`` of them stay, and one of each part.

    No value is read from the device: a GPU would wait.
    """
    least = math.ceil(LEAST * len(factors))
    left = alive & (factors > 0)
    enough = torch.stack([left.sum() >= least, *(left[part].any() for part in parts)]).all()
    spared = largest(torch.where(alive, sizes, -1.0), least, parts).bool()
    return torch.where(spared & ~enough, 1.0, factors)


def largest(sizes: Tensor, count: int, parts: Sequence[np.ndarray] = ()) -> Tensor:
    """1 for the ``count`` largest, and for the largest of each part, else 0."""
    kept = torch.zeros_like(sizes, dtype=torch.uint8)
    kept[torch.topk(sizes, count).indices] = 1
    for part in parts:
        places = torch.from_numpy(part).to(sizes.device)
        kept[places[sizes[places].argmax()]] = 1
    return kept


def _ranks(columns: Mapping[str, Tensor]) -> dict[str, int]:
    """How many columns are alive, asked of the device at once."""
    counts = torch.stack([x.sum() for x in columns.values()]).tolist() if columns else []
    return dict(zip(columns, counts, strict=True))
