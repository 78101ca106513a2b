"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def head(titles: Sequence[str]) -> list[str]:
    """The two lines that a table begins with."""
    return [row(titles), f"|{'---|' * len(titles)}"]


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def interval(found: Mapping[str, float] | None, unit: str = "") -> str:
    """A value with its 95 % interval, as in ``1.50x (1.45 to 1.55)`` with the unit ``x``; nothing for None."""
    return f"{found['value']:.2f}{unit} ({found['low']:.2f} to {found['high']:.2f})" if found else ""
