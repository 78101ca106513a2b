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
_DENSE, _COMPRESSED, _INK, _FAINT, _PAPER = "#0072b2", "#e69f00", "#010203", "#0a0b0c", "#0d0e0f"
_VARIABLES = {
    _DENSE: "var(--dense)",
    _COMPRESSED: "var(--compressed)",
    _INK: "currentColor",
    _FAINT: "var(--faint)",
    _PAPER: "var(--paper)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgekron",
    "text.parse_math": False,
    "font.size": 11,
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
#: Inches. A figure is as wide as a phone, where a point becomes a pixel and the words stay readable.
_WIDTH = 4.7
#: Longer names of layers lose their beginning.
_LONGEST_NAME = 24
_BAR = 0.38
#: An axis of latencies ends at this many times the longest median; a whisker may go on beyond it.
_ROOM = 1.9


@dataclass(frozen=True)
class Bar:
    """A value, the ends of its whisker, and its label; None where nothing was measured."""

    value: float
    low: float
    high: float
    label: str


Pair = tuple[Bar, Bar]


def latencies(rows: Sequence[tuple[str, Pair]]) -> str:
    """Latency in milliseconds by runtime, dense and compressed."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 1.1 + 0.75 * len(rows)), layout="constrained")
        axes = figure.subplots()
        _bars(axes, rows)
        axes.set(title="Latency of one image", xlabel="milliseconds (less is better)")
        _legend(figure)
        return _svg(figure, "latency", "Latency of the dense and the compressed file in each runtime")


def accuracies(rows: Sequence[tuple[str, Pair]]) -> str:
    """Top-1 in percent by runtime, dense and compressed."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 1.1 + 0.75 * len(rows)), layout="constrained")
        axes = figure.subplots()
        _dots(axes, rows)
        axes.set(title="Top-1 accuracy", xlabel="percent of the images (more is better)")
        _legend(figure)
        return _svg(figure, "top1", "Top-1 accuracy of the dense and the compressed file in each runtime")


def distributions(rows: Sequence[tuple[str, tuple[Sequence[float], Sequence[float]]]]) -> str:
    """Quantiles of the latency in milliseconds, evenly spaced, by runtime: two lines of one plot."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.7 + 2.0 * len(rows)), layout="constrained")
        for axes, (name, pair) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
            for quantiles, colour in zip(pair, (_DENSE, _COMPRESSED), strict=True):
                shares = [100 * i / (len(quantiles) - 1) for i in range(len(quantiles))]
                axes.plot(quantiles, shares, color=colour, linewidth=1.6)
            # The slowest inferences are the machine's; on a linear axis they would squeeze all others.
            axes.set_xlim(0, _ROOM * max(quantiles[len(quantiles) // 2] for quantiles in pair))
            axes.set(title=f"Every latency, {name}", xlabel="milliseconds", ylabel="percent within", ylim=(0, 102))
            axes.grid()
        _legend(figure)
        return _svg(figure, "spread", "Share of the inferences within each latency, dense and compressed")


def memory_ladder(rows: Sequence[tuple[str, Sequence[tuple[str, tuple[float, float]]]]]) -> str:
    """Memory in megabytes by runtime and rung (runtime only, loaded, ...), dense and compressed."""
    rungs = max(len(ladder) for _, ladder in rows)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.7 + (0.6 + 0.42 * rungs) * len(rows)), layout="constrained")
        for axes, (name, ladder) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
            _layer_axis(axes, [rung for rung, _ in ladder])
            for index, (_, pair) in enumerate(ladder):
                for value, offset, colour in zip(pair, (-_BAR / 2, _BAR / 2), (_DENSE, _COMPRESSED), strict=True):
                    axes.barh(index + offset, value, 0.9 * _BAR, color=colour)
                    axes.annotate(
                        f"{value:.1f}",
                        (value, index + offset),
                        (4, 0),
                        textcoords="offset points",
                        va="center",
                        fontsize=9,
                    )
            axes.set_xlim(0, 1.2 * max(value for _, pair in ladder for value in pair))
            axes.set(title=f"Memory, {name}", xlabel="megabytes")
        _legend(figure)
        return _svg(figure, "memory", "Memory of the process from the runtime alone to the steady state")


def by_layer(names: Sequence[str], before: Sequence[float], after: Sequence[float], title: str, unit: str) -> str:
    """One pair of bars a layer, the network's first layer on top; both series in ``unit``."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 1.1 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots()
        _layer_axis(axes, names)
        at = range(len(names))
        axes.barh([i - _BAR / 2 for i in at], before, _BAR, color=_DENSE)
        axes.barh([i + _BAR / 2 for i in at], after, _BAR, color=_COMPRESSED)
        axes.set(title=title, xlabel=unit)
        _legend(figure)
        return _svg(figure, re.sub(r"\W+", "-", title.lower()), f"{title}, dense and compressed")


def errors(names: Sequence[str], percent: Sequence[float | None]) -> str:
    """One bar for each layer with its error in percent; a layer that stays dense is labelled so."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.9 + 0.28 * len(names)), layout="constrained")
        axes = figure.subplots()
        _layer_axis(axes, names)
        axes.barh(range(len(names)), [value or 0.0 for value in percent], 0.62, color=_COMPRESSED)
        top = max((value for value in percent if value is not None), default=1.0)
        for index, value in enumerate(percent):
            text = "stays dense" if value is None else f"{value:.2f}"
            axes.annotate(text, (value or 0.0, index), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set(title="Output error by layer", xlabel="percent of its outputs' variance")
        axes.set_xlim(0, 1.25 * top)
        return _svg(figure, "errors", "Output error of each compressed layer")


def _layer_axis(axes: Axes, names: Sequence[str]) -> None:
    shown = [
        name if len(name) <= _LONGEST_NAME else f"\N{HORIZONTAL ELLIPSIS}{name[-_LONGEST_NAME:]}" for name in names
    ]
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")


def _bars(axes: Axes, rows: Sequence[tuple[str, Pair]]) -> None:
    _layer_axis(axes, [name for name, _ in rows])
    edge = _ROOM * max(bar.value for _, pair in rows for bar in pair)
    for index, (_, pair) in enumerate(rows):
        for bar, offset, colour in zip(pair, (-_BAR / 2, _BAR / 2), (_DENSE, _COMPRESSED), strict=True):
            axes.barh(index + offset, bar.value, 0.9 * _BAR, color=colour)
            _whisker(axes, bar, index + offset, _INK)
            # Beside the whisker, unless that goes on beyond the edge.
            end = (min(bar.high, 0.75 * edge), index + offset)
            paper = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1}
            axes.annotate(bar.label, end, (6, 0), textcoords="offset points", va="center", fontsize=9, bbox=paper)
    axes.set_xlim(0, edge)


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
