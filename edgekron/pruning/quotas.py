"""How many channels of each group stay: all groups by one threshold, given or found for a budget.

Runtimes compute channels in tiles, so the number of channels that stay is raised to the next number that runs well
(``edgekron.planning.ranks.raised``), unless every width is wanted.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping

from edgekron.errors import UserError
from edgekron.graph.reasons import kinds_of
from edgekron.planning.allocation import COSTS
from edgekron.planning.ranks import raised

from .groups import ChannelStructure
from .order import Order

#: Share of a group's channels that stays in any case.
LEAST = 1 / 8


def by_threshold(orders: Mapping[str, Order], similarity: float, *, any_width: bool) -> dict[str, int]:
    """How many channels of each group stay when those of at least ``similarity`` go."""
    return {
        name: _kept(order, sum(value >= similarity for value in order.similarity), any_width)
        for name, order in orders.items()
    }


def to_ratios(
    structure: ChannelStructure, orders: Mapping[str, Order], ratios: Mapping[str, float], *, any_width: bool
) -> dict[str, int]:
    """How many channels of each group stay at the lowest price at which every cost falls by its ratio.

    Of channels that all have this last price, no more go than it takes. ``ratios`` maps "macs" or "parameters" to how
    many times fewer the network is to have. Raises ``UserError`` with the best ratio that can be reached.
    """
    dense = structure.costs(set())
    prices = sorted({price for order in orders.values() for price in order.price})

    def counts(price: float) -> dict[str, int]:
        return {name: _kept(order, bisect_right(order.price, price), any_width) for name, order in orders.items()}

    def enough(kept: Mapping[str, int]) -> bool:
        now = structure.costs(removed_units(orders, kept))
        return all(now[cost] * ratio <= dense[cost] for cost, ratio in ratios.items())

    def reaches(price: float) -> bool:
        return enough(counts(price))

    nothing = -math.inf
    if reaches(nothing):
        return counts(nothing)
    if not prices or not reaches(prices[-1]):
        least = structure.costs(removed_units(orders, counts(prices[-1] if prices else nothing)))
        best = ", ".join(f"{dense[cost] / least[cost]:.2f} times fewer {COSTS[cost]}" for cost in ratios)
        why = kinds_of(group.reason or "can be pruned" for group in structure.groups)
        raise UserError(f"pruning cannot reach that; the best that this network can is {best}: {why}.")
    last = _first(prices, reaches)
    place = prices.index(last)
    before = counts(prices[place - 1] if place else nothing)
    return _given_back(orders, before, counts(last), any_width, enough)


def _given_back(
    orders: Mapping[str, Order],
    before: Mapping[str, int],
    after: dict[str, int],
    any_width: bool,
    enough: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """``after`` with as many channels given back as the budget allows, in each group up to its number ``before``."""
    kept = dict(after)
    for name, order in orders.items():
        count = len(order.group.units)
        widths = {_kept(order, count - width, any_width) for width in range(kept[name], before[name] + 1)}
        within = (width for width in sorted(widths, reverse=True) if kept[name] < width <= before[name])
        kept[name] = next((width for width in within if enough({**kept, name: width})), kept[name])
    return kept


def removed_units(orders: Mapping[str, Order], counts: Mapping[str, int]) -> set[int]:
    """The units that go when ``counts`` channels of each group stay."""
    gone: set[int] = set()
    for name, kept in counts.items():
        group = orders[name].group
        gone |= {int(group.units[place]) for place in orders[name].places[: len(group.units) - kept]}
    return gone


def _kept(order: Order, removed: int, any_width: bool) -> int:
    count = len(order.group.units)
    kept = max(count - removed, math.ceil(LEAST * count), _needed(order, removed))
    return kept if any_width else raised(kept, count)


def _needed(order: Order, removed: int) -> int:
    """How many channels have to stay so that no part of the group loses its last channel."""
    count = len(order.group.units)
    for part in order.group.parts:
        left = set(part.tolist())
        for done, place in enumerate(order.places[:removed]):
            left.discard(place)
            if not left:
                return _needed(order, done)
    return count - removed


def _first(prices: list[float], reaches: Callable[[float], bool]) -> float:
    """The first of the ascending prices that reaches the budget; the last one does."""
    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        if reaches(prices[middle]):
            high = middle
        else:
            low = middle + 1
    return prices[low]
