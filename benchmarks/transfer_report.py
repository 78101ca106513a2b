"""What ``transfer.py`` found, as a table and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from publishing import ROOT
from transfer_latency import RUNTIMES, speedups
from transfer_rows import DISTILLATION, FAMILIES, STEPS

from edgekron import models
from edgekron.errors import UserError
from edgekron.files import write_file

COLOURS = dict(
    zip((*FAMILIES, DISTILLATION), ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), strict=True)
)
MARKS = {"calibrated": "o", "reconstructed": "s", "transferred": "^"}


def write_report(model: str, rows: list[dict[str, Any]], latency: Path) -> None:
    """Writes ``docs/transfer-MODEL.md`` and ``docs/transfer-MODEL.svg`` from finished steps, with what the file
    ``latency`` has measured of them. Raises ``UserError`` where there is none.
    """
    if not rows:
        raise UserError(f"there is no finished step of {model}; run this without --table first.")
    timed = json.loads(latency.read_text()) if latency.exists() else {}
    write_file(ROOT / "docs" / f"transfer-{model}.md", table(model, rows, timed), force=True)
    draw(rows, speedups(timed), ROOT / "docs" / f"transfer-{model}.svg")


def table(model: str, rows: list[dict[str, Any]], timed: dict[str, Any]) -> str:
    """Markdown: a line for each key, top-1 after each step, and what was measured of the last."""
    fast = [f"as fast, {title}" for _, title, _ in RUNTIMES.values()]
    heads = ["family", "MACs", "parameters", *STEPS, *fast, "calibration, training images, epochs, on"]
    lines = [
        f"# What each step wins back on {model}",
        "",
        f"`benchmarks/transfer.py {model}`; dense: {(models.facts(model) or {})['top1']:.2f} % top-1 on Fashion-MNIST.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    measured = speedups(timed)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["key"]), []).append(row)
    for name, group in groups.items():
        key, found = group[0]["key"], {row["step"]: row for row in group}
        cells = [f"{found[step]['top1']:.2f}" if step in found else "" for step in STEPS]
        cells += [_interval(measured.get(name, {}).get(runtime)) for runtime in RUNTIMES]
        ratios, device = group[-1]["ratios"], group[-1].get("device") or group[-1].get("machine")
        lines.append(
            f"| {key['family']} | {ratios['macs']:.2f}x | {ratios['parameters']:.2f}x | {' | '.join(cells)} | "
            f"{key['calibration']}, {key['train']}, {key['epochs']}, {device} |"
        )
    if timed:
        versions = " and ".join(f"{name} {timed['versions'][name]}" for name in ("onnxruntime", "ai-edge-litert"))
        how = f"one image, one thread, {versions}, measured on {timed['date'][:10]}"
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


def _interval(speedup: dict[str, float] | None) -> str:
    return f"{speedup['value']:.2f}x ({speedup['low']:.2f} to {speedup['high']:.2f})" if speedup else ""


def draw(rows: list[dict[str, Any]], measured: dict[str, Any], path: Path) -> None:
    """Top-1 against times fewer MACs and parameters, and of trained networks against measured latency."""
    with mpl.rc_context({"svg.hashsalt": "edgekron"}):
        figure = Figure((13.0, 4.0), layout="constrained")
        macs, parameters, latency = figure.subplots(1, 3, sharey=True)
        for family, colour in COLOURS.items():
            of_family = [row for row in rows if row["key"]["family"] == family]
            for axes, unit in ((macs, "macs"), (parameters, "parameters")):
                for step, mark in MARKS.items():
                    points = [(row["ratios"][unit], row["top1"]) for row in of_family if row["step"] == step]
                    _scatter(axes, points, marker=mark, color=colour, label=f"{family}, {step}")
            trained = [row for row in of_family if row["step"] == "transferred"]
            for runtime, (_, title, _) in RUNTIMES.items():
                known = [(measured.get(json.dumps(row["key"]), {}).get(runtime), row["top1"]) for row in trained]
                points = [(speedup["value"], top1) for speedup, top1 in known if speedup]
                face = colour if runtime == "onnxruntime" else "none"
                _scatter(latency, points, marker="^", edgecolors=colour, facecolors=face, label=f"{family}, {title}")
        macs.set(ylabel="top-1 %", xlabel="times fewer MACs")
        parameters.set(xlabel="times fewer parameters")
        latency.set(xlabel="times as fast, transferred")
        for axes in (macs, parameters, latency):
            axes.grid(visible=True, alpha=0.3)
        for axes in (parameters, latency):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=6, ncols=2)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _scatter(axes: Axes, points: list[tuple[float, float]], **style: Any) -> None:
    if points:
        axes.scatter(*zip(*points, strict=True), **style)
