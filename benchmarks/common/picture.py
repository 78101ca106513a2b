"""Pictures that come out the same, byte by byte, each time they are drawn of the same record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

#: Axes without a box around them.
OPEN = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


@contextmanager
def picture(path: Path, width: float, height: float, style: Mapping[str, Any] | None = None) -> Iterator[Figure]:
    """A figure of so many inches to draw on, which is written to ``path`` (.svg) in the end."""
    with mpl.rc_context({"svg.hashsalt": "edgekron", **(style or {})}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
