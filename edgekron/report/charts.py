"""The pictures of a page as SVG text, drawn by matplotlib without any display.

Colours are variables of the page's style sheet, so that a picture follows the reader's light or dark setting. Dense is
always blue and compressed always orange, a pair that is told apart with any colour vision, and in print by lightness.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Stand-ins that matplotlib draws with, and what they become in the page.
_DENSE, _COMPRESSED, _INK, _FAINT = "#0072b2", "#e69f00", "#010203", "#0a0b0c"
_VARIABLES = {
    _DENSE: "var(--dense)",
    _COMPRESSED: "var(--compressed)",
    _INK: "currentColor",
    _FAINT: "var(--faint)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgekron",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "ytick.major.pad": 7,
    "legend.frameon": False,
}
_WIDTH = 9.2
_BAR = 0.38
#: The latency axis ends at this many times the longest median; a whisker may go on beyond it.
_ROOM = 1.6


@dataclass(frozen=True)
class Bar:
    """A value, the ends of its whisker, and its label; None where nothing was measured."""

    value: float
    low: float
    high: float
    label: str


Pair = tuple[Bar, Bar]


def before_and_after(latencies: Sequence[tuple[str, Pair]], accuracies: Sequence[tuple[str, Pair]]) -> str:
    """Latency in milliseconds and top-1 in percent by runtime, dense and compressed; an empty list has no picture."""
    parts = [part for part in (latencies, accuracies) if part]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.95 + 0.85 * max(map(len, parts))), layout="constrained")
        axes = figure.subplots(1, len(parts), squeeze=False)[0]
        if latencies:
            _bars(axes[0], latencies)
            axes[0].set(title="Latency of one image", xlabel="milliseconds (less is better)")
        if accuracies:
            _dots(axes[-1], accuracies)
            axes[-1].set(title="Top-1 accuracy", xlabel="percent of the images (more is better)")
        _legend(figure)
        return _svg(figure, "pairs", "Latency and top-1 accuracy of the dense and the compressed file in each runtime")


def by_layer(names: Sequence[str], before: Sequence[float], after: Sequence[float], title: str, unit: str) -> str:
    """One pair of bars a layer, the network's first layer on top; both series in ``unit``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.9 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots()
        _layer_axis(axes, names)
        at = range(len(names))
        axes.barh([i - _BAR / 2 for i in at], before, _BAR, color=_DENSE)
        axes.barh([i + _BAR / 2 for i in at], after, _BAR, color=_COMPRESSED)
        axes.set(title=title, xlabel=unit)
        _legend(figure)
        return _svg(figure, re.sub(r"\W+", "-", title.lower()), f"{title}, dense and compressed")


def errors(names: Sequence[str], percent: Sequence[float | None]) -> str:
    """One bar a layer with its error in percent; a layer that stays dense says so."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.75 + 0.28 * len(names)), layout="constrained")
        axes = figure.subplots()
        _layer_axis(axes, names)
        axes.barh(range(len(names)), [value or 0.0 for value in percent], 0.62, color=_COMPRESSED)
        top = max((value for value in percent if value is not None), default=1.0)
        for index, value in enumerate(percent):
            text = "stays dense" if value is None else f"{value:.2f}"
            axes.annotate(text, (value or 0.0, index), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set(title="Output error by layer", xlabel="percent of the variance of the layer's outputs")
        axes.set_xlim(0, 1.1 * top)
        return _svg(figure, "errors", "Output error of each compressed layer")


def _layer_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")


def _bars(axes: Axes, rows: Sequence[tuple[str, Pair]]) -> None:
    _layer_axis(axes, [name for name, _ in rows])
    for index, (_, pair) in enumerate(rows):
        for bar, offset, colour in zip(pair, (-_BAR / 2, _BAR / 2), (_DENSE, _COMPRESSED), strict=True):
            axes.barh(index + offset, bar.value, 0.9 * _BAR, color=colour)
            _whisker(axes, bar, index + offset, _INK)
            axes.annotate(
                bar.label, (bar.value, index + offset), (6, 8), textcoords="offset points", va="center", fontsize=9
            )
    axes.set_xlim(0, _ROOM * max(bar.value for _, pair in rows for bar in pair))


def _dots(axes: Axes, rows: Sequence[tuple[str, Pair]]) -> None:
    """Accuracies lie close together: dots on an axis that need not start at zero, where bars would mislead."""
    _layer_axis(axes, [name for name, _ in rows])
    for index, (_, pair) in enumerate(rows):
        for bar, offset, colour in zip(pair, (-_BAR / 2, _BAR / 2), (_DENSE, _COMPRESSED), strict=True):
            _whisker(axes, bar, index + offset, colour)
            axes.plot(bar.value, index + offset, "o", color=colour, markersize=8)
            axes.annotate(
                bar.label, (bar.high, index + offset), (6, 0), textcoords="offset points", va="center", fontsize=9
            )
    low = min(bar.low for _, pair in rows for bar in pair)
    high = max(bar.high for _, pair in rows for bar in pair)
    room = max(high - low, 0.5)
    axes.set_xlim(low - 0.15 * room, high + 0.45 * room)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _whisker(axes: Axes, bar: Bar, y: float, colour: str) -> None:
    axes.plot([bar.low, bar.high], [y, y], color=colour, linewidth=1.3)


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=_DENSE, label="dense"), Patch(color=_COMPRESSED, label="compressed")]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)


def _svg(figure: Figure, name: str, about: str) -> str:
    """The figure for use inside a page: no prolog, identifiers of its own, the page's colours and typeface."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text).replace('xlink:href="#', f'href="#{name}-')
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"font: ([^;\"]*px) [^;\"]*", r"font: \1 var(--type)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"|<svg height="[^"]*"', "<svg", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{about}"', 1).strip()
