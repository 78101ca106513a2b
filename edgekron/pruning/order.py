"""The order in which the channels of a group are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .groups import Group


@dataclass(frozen=True)
class Order:
    """A group's channels in the order of their removal.

    ``similarity`` is the criterion's own measure of each channel, never rising, to be compared with a threshold.
    ``price`` is a measure that a budget compares between groups, never falling: the cheapest channel goes first.
    """

    group: Group
    places: tuple[int, ...]
    similarity: tuple[float, ...]
    price: tuple[float, ...]


def order_of(group: Group, places: Sequence[int], similarity: Sequence[float], price: Sequence[float]) -> Order:
    """An ``Order`` with both measures made monotonic: a later channel is never more similar, and never cheaper."""
    falling = np.minimum.accumulate(np.asarray(similarity, np.float64)) if len(places) else np.zeros(0)
    rising = np.maximum.accumulate(np.asarray(price, np.float64)) if len(places) else np.zeros(0)
    return Order(group, tuple(places), tuple(falling.tolist()), tuple(rising.tolist()))
