"""Every family beside the others: error and top-1 against parameters, MACs and measured latency.

    python -m benchmarks.families sixconv [--ratio 2.5]

Each family is asked for the same number of times fewer MACs, once by the weights alone and once fitted to the bundled
calibration images, without training. Files are ONNX, evaluated and timed in ONNX Runtime against the dense network,
all of them in one interleaved run. The record is ``families-MODEL``, with a page and a picture.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import CALIBRATION, TEST, calibration, ratios, taken, trained
from benchmarks.common.picture import OPEN, picture
from benchmarks.common.record import Record, day, made
from benchmarks.common.variants import Variant, compare
from edgekron.compression.compressor import compress

FAMILIES = ("kronecker", "low-rank", "channel-svd", "tucker", "cp", "tt", "tr")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def options(parser: argparse.ArgumentParser) -> None:
    """Which network, how much smaller, measured how well."""
    add_options(parser, "ratio", "calibration", "seconds", "images", ratio=2.5)


def measure(arguments: argparse.Namespace) -> Record:
    """The dense network and every family, by weights and by data."""
    name = arguments.model
    _, dense = trained(name)
    images = calibration(arguments.calibration)
    variants = [Variant.of(dense, {"family": "dense", "fit": ""})]
    for family in FAMILIES:
        for fit, data in (("weights", []), ("data", images)):
            print(f"{family} by {fit}", flush=True)
            start = time.perf_counter()
            made_of = compress(dense, model=name, ratios={"macs": arguments.ratio}, data=data, method=family)
            seconds, fewer = time.perf_counter() - start, ratios(dense, made_of.hub)
            errors = [row["error"] for row in made_of.report["layers"].values() if "error" in row]
            row = {"family": family, "fit": fit, "layers": len(errors), "mean_error": statistics.mean(errors)}
            row |= {"mac_ratio": fewer["macs"], "parameter_ratio": fewer["parameters"]}
            variants.append(Variant.of(made_of.hub, row | {"seconds": seconds}))
    report = compare(variants, "onnx", seconds=arguments.seconds, images=arguments.images)
    return made(*PACKAGES) | {
        "model": name,
        "ratio": arguments.ratio,
        "machine": dict(report.environment),
        "calibration": taken(arguments.calibration, CALIBRATION),
        "data": taken(arguments.images, TEST),
        "threads": 1,
        "warnings": list(report.warnings),
        "units": {
            "latency": "second",
            "top1": "percent",
            "mean_error": "squared error of a layer's outputs over their variance (by data, on held-out images), or of "
            "its kernel over its square (by weights); mean of the factorized layers",
        },
        "rows": [variant.row for variant in variants],
    }


def table(result: Record) -> str:
    """The rows as Markdown."""
    measured = (
        f"`{result['command']}`, {day(result)}; {result['calibration']}; {result['data']}; ONNX Runtime "
        f"{result['versions']['onnxruntime']}, one thread; latency against the dense file with its 95 % interval."
    )
    lines = [
        f"# Families on {result['model']}, asked for {result['ratio']:g}x fewer MACs, no training",
        "",
        measured,
        "",
        *tables.head(["family", "fitted to", "MACs", "parameters", "layers", "top-1 %", "as fast"]),
    ]
    for row in result["rows"]:
        if row["family"] == "dense":
            latency = 1e3 * row["latency"]["median"]
            lines.append(f"| dense | | | | | {row['top1']:.2f} | {latency:.3f} ms |")
            continue
        cells = [row["family"], row["fit"], f"{row['mac_ratio']:.2f}x", f"{row['parameter_ratio']:.2f}x"]
        cells += [str(row["layers"]), f"{row['top1']:.2f}", tables.interval(row["speedup"], "x")]
        lines.append(tables.row(cells))
    return "\n".join([*lines, "", f"![Top-1 against latency](families-{result['model']}.svg)", ""])


def draw(result: Record, path: Path) -> None:
    """Top-1 against latency and against parameters: open marks by weights, full ones by data."""
    with picture(path, 9.5, 4.4, OPEN) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        dense, *rows = result["rows"]
        left.plot(1e3 * dense["latency"]["median"], dense["top1"], "*", color="#666666", markersize=14, label="dense")
        for row in rows:
            colour = COLOURS[FAMILIES.index(row["family"])]
            full = row["fit"] == "data"
            style = {"marker": "o", "color": colour, "markerfacecolor": colour if full else "none", "linestyle": "none"}
            label = row["family"] if full else None
            left.plot(1e3 * row["latency"]["median"], row["top1"], label=label, **style)
            right.plot(row["parameter_ratio"], row["top1"], **style)
        left.set(xlabel="median latency of one image, ms (1 thread)", ylabel="top-1, percent")
        right.set(xlabel="times fewer parameters")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        left.legend(frameon=False, fontsize=8)
        left.set_title(
            f"{result['model']}: {result['ratio']:g}x fewer MACs; full: fitted to data, open: to weights", loc="left"
        )


EXPERIMENT = Experiment("families", __doc__, "families-{model}", measure, options, table, draw)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
