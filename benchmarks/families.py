"""Every family beside the others: error and top-1 against parameters, MACs and measured latency.

    python benchmarks/families.py sixconv [--ratio 2.5]

Each family is asked for the same number of times fewer MACs, once by the weights alone and once fitted to the bundled
calibration images, without training. Files are ONNX, evaluated and timed in ONNX Runtime against the dense network,
all of them in one interleaved run. It writes ``benchmarks/results/families-MODEL.json``, ``docs/families-MODEL.svg``
and ``docs/families-MODEL.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from publishing import CALIBRATION, TEST, publish, trained

from edgekron.compression.compressor import compress
from edgekron.exporters.onnx import export_onnx
from edgekron.models import datasets
from edgekron.runtimes import Measuring, bench, top1

FAMILIES = ("kronecker", "low-rank", "channel-svd", "tucker", "cp", "tt", "tr")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
PACKAGES = ("edgekron", "torch", "onnx", "onnxruntime", "numpy")


def main() -> int:
    """Measures and writes; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as sixconv")
    parser.add_argument("--ratio", type=float, default=2.5, metavar="R", help="R times fewer MACs (default: 2.5)")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds a file (default: 2)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    arguments = parser.parse_args()
    return publish(f"families-{arguments.model}", lambda: measure(arguments), table, draw)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The dense network and every family, by weights and by data."""
    name = arguments.model
    _, dense = trained(name)
    calibration = [x for x, _ in datasets.load(CALIBRATION).subset(arguments.calibration).batches(32)]
    test = datasets.load(TEST).subset(arguments.images)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgekron-families-") as folder:
        files = [Path(folder) / "dense.onnx"]
        export_onnx(dense, files[0])
        rows.append({"family": "dense", "fit": ""})
        for family in FAMILIES:
            for fit, data in (("weights", []), ("data", calibration)):
                print(f"{family} by {fit}", flush=True)
                start = time.perf_counter()
                made = compress(dense, model=name, ratios={"macs": arguments.ratio}, data=data, method=family)
                seconds = time.perf_counter() - start
                files.append(Path(folder) / f"{family}-{fit}.onnx")
                export_onnx(made.hub, files[-1])
                errors = [row["error"] for row in made.report["layers"].values() if "error" in row]
                rows.append(
                    {
                        "family": family,
                        "fit": fit,
                        "mac_ratio": made.report["totals"]["macs"]["ratio"],
                        "parameter_ratio": made.report["totals"]["parameters"]["ratio"],
                        "layers": len(errors),
                        "mean_error": statistics.mean(errors),
                        "seconds": seconds,
                    }
                )
        report = bench(files, Measuring(threads=1, seconds=arguments.seconds))
        speedups = [None, *(asdict(interval) for interval in report.speedups)]
        for row, file, measured, speedup in zip(rows, files, report.files, speedups, strict=True):
            row["bytes"] = file.stat().st_size
            row["top1"] = 100 * top1(file, test.batches(100), threads=1).top1
            row["latency"], row["speedup"] = asdict(measured.latency), speedup
    return {
        "model": name,
        "ratio": arguments.ratio,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": dict(report.environment),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "calibration": f"{sum(map(len, calibration))} images of {CALIBRATION}",
        "data": f"{len(test)} images of {TEST}",
        "threads": 1,
        "warnings": list(report.warnings),
        "units": {
            "latency": "second",
            "top1": "percent",
            "mean_error": "squared error of a layer's outputs over their variance (by data, on held-out images), or of "
            "its kernel over its square (by weights); mean of the factorized layers",
        },
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    measured = (
        f"`{result['command']}`, {result['date'][:10]}; {result['calibration']}; {result['data']}; ONNX Runtime "
        f"{result['versions']['onnxruntime']}, one thread; latency against the dense file with its 95 % interval."
    )
    lines = [
        f"# Families on {result['model']}, asked for {result['ratio']:g}x fewer MACs, no training",
        "",
        measured,
        "",
        "| family | fitted to | MACs | parameters | layers | top-1 % | as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["family"] == "dense":
            latency = 1e3 * row["latency"]["median"]
            lines.append(f"| dense | | | | | {row['top1']:.2f} | {latency:.3f} ms |")
            continue
        s = row["speedup"]
        lines.append(
            f"| {row['family']} | {row['fit']} | {row['mac_ratio']:.2f}x | {row['parameter_ratio']:.2f}x | "
            f"{row['layers']} | {row['top1']:.2f} | {s['value']:.2f}x ({s['low']:.2f} to {s['high']:.2f}) |"
        )
    return "\n".join([*lines, "", f"![Top-1 against latency](families-{result['model']}.svg)", ""])


def draw(result: dict[str, Any], path: Path) -> None:
    """Top-1 against latency and against parameters: open marks by weights, full ones by data."""
    with mpl.rc_context(
        {"svg.hashsalt": "edgekron", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(9.5, 4.4), layout="constrained")
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
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
