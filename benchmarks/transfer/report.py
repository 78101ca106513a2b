"""A page and a picture of what the steps have come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from benchmarks.common import table as tables
from benchmarks.common.networks import known_top1
from benchmarks.common.picture import picture
from benchmarks.common.record import Place, Record, Row, day
from benchmarks.common.variants import RUNTIMES
from edgekron.errors import UserError
from edgekron.files import write_file

from .latency import NAMES, speedups
from .rows import DISTILLATION, FAMILIES, STEPS

COLOURS = dict(
    zip((*FAMILIES, DISTILLATION), ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), strict=True)
)
MARKS = {"calibrated": "o", "reconstructed": "s", "transferred": "^"}


def write_report(model: str, rows: list[Row], timed: Record, place: Place) -> None:
    """Writes the page and the picture of ``place`` from finished steps, with what ``timed`` says of their latency.

    Raises ``UserError`` where no step is finished.
    """
    if not rows:
        raise UserError(f"there is no finished step of {model}; run this without --table first.")
    write_file(place.document("md"), table(model, rows, timed), force=True)
    draw(rows, speedups(timed), place.document("svg"))


def table(model: str, rows: list[Row], timed: Record) -> str:
    """Markdown: a line for each key, top-1 after each step, and what was measured of the last."""
    fast = [f"as fast, {title}" for title in RUNTIMES.values()]
    heads = ["family", "MACs", "parameters", *STEPS, *fast, "calibration, training images, epochs, on"]
    about = f"`python -m benchmarks.transfer {model}`; dense: {known_top1(model):.2f} % top-1 on Fashion-MNIST."
    lines = [f"# What each step wins back on {model}", "", about, "", *tables.head(heads)]
    measured = speedups(timed)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["key"]), []).append(row)
    lines += [_line(group, measured.get(name, {})) for name, group in groups.items()]
    if timed:
        versions = " and ".join(f"{name} {timed['versions'][name]}" for name in ("onnxruntime", "ai-edge-litert"))
        how = f"one image, one thread, {versions}, measured on {day(timed)}"
        lines += ["", f"As fast: dense over compressed latency with its 95 % interval; {how}."]
    lines += [
        "",
        "MACs and parameters are those of the last step; by the weights alone, a family may come to other MACs.",
    ]
    if any(row["key"]["family"] == DISTILLATION for row in rows):
        explained = (
            "a thinner network of the same kind, trained from random weights with labels and the teacher's outputs."
        )
        lines += ["", f"Distillation: {explained}"]
    return "\n".join([*lines, "", f"![Top-1 against what is saved](transfer-{model}.svg)", ""])


def _line(steps: list[Row], measured: dict[str, dict[str, float]]) -> str:
    """The finished steps of one family at one ratio."""
    key, found, last = steps[0]["key"], {row["step"]: row for row in steps}, steps[-1]
    cells = [key["family"], *(f"{last['ratios'][unit]:.2f}x" for unit in ("macs", "parameters"))]
    cells += [f"{found[step]['top1']:.2f}" if step in found else "" for step in STEPS]
    cells += [tables.interval(measured.get(runtime), "x") for runtime in NAMES.values()]
    device = last.get("device") or last.get("machine")
    return tables.row([*cells, f"{key['calibration']}, {key['train']}, {key['epochs']}, {device}"])


def draw(rows: list[Row], measured: dict[str, Any], path: Path) -> None:
    """Top-1 against times fewer MACs and parameters, and of trained networks against measured latency."""
    with picture(path, 13.0, 4.0) as figure:
        macs, parameters, latency = figure.subplots(1, 3, sharey=True)
        for family, colour in COLOURS.items():
            of_family = [row for row in rows if row["key"]["family"] == family]
            for axes, unit in ((macs, "macs"), (parameters, "parameters")):
                for step, mark in MARKS.items():
                    points = [(row["ratios"][unit], row["top1"]) for row in of_family if row["step"] == step]
                    _scatter(axes, points, marker=mark, color=colour, label=f"{family}, {step}")
            trained = [row for row in of_family if row["step"] == "transferred"]
            for target, runtime in NAMES.items():
                known = [(measured.get(json.dumps(row["key"]), {}).get(runtime), row["top1"]) for row in trained]
                points = [(speedup["value"], top1) for speedup, top1 in known if speedup]
                face = colour if runtime == "onnxruntime" else "none"
                _scatter(
                    latency,
                    points,
                    marker="^",
                    edgecolors=colour,
                    facecolors=face,
                    label=f"{family}, {RUNTIMES[target]}",
                )
        macs.set(ylabel="top-1 %", xlabel="times fewer MACs")
        parameters.set(xlabel="times fewer parameters")
        latency.set(xlabel="times as fast, transferred")
        for axes in (macs, parameters, latency):
            axes.grid(visible=True, alpha=0.3)
        for axes in (parameters, latency):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=6, ncols=2)


def _scatter(axes: Axes, points: list[tuple[float, float]], **style: Any) -> None:
    if points:
        axes.scatter(*zip(*points, strict=True), **style)
