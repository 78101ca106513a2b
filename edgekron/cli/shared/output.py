"""Tables on standard output; progress on standard error, only when a person is watching."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    Console(soft_wrap=True, highlight=False, markup=False).print(json.dumps(value, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> None:
    """A table; columns whose names begin with ``<`` hold words and are aligned to the left."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe has no width to fit: never fold what a script may read.
        console = Console(highlight=False, width=max(console.width, 200))
    # As they are: a name of a file or a word of a device may look like rich's markup.
    table = Table(title=escape(title), caption=escape(caption) or None, title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(column.lstrip("<"), justify="left" if column.startswith("<") else "right")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


def say(text: str) -> None:
    """One line on standard output."""
    Console(highlight=False, markup=False, soft_wrap=True).print(text)


class Steps:
    """One progress bar for each kind of work, called as ``steps(work, done, total)``, with a changing ``note``."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int | None, note: str = "") -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note=note)
        self._progress.update(self._tasks[what], completed=done, total=total, note=note)


@contextmanager
def progress_bars(*, shown: bool = True) -> Iterator[Steps]:
    """Progress bars on standard error; silent when it is no terminal, or when they are not to be ``shown``."""
    console = Console(stderr=True)
    words = [TextColumn("{task." + name + "}", markup=False) for name in ("description", "fields[note]")]
    columns = (words[0], BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), words[1])
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        yield Steps(progress)


def count(number: float) -> str:
    """A large number with its unit: 557,248 as 557 k, 77719808 as 77.7 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
