"""Top-1 against latency of a bundled network at several compression ratios, in both runtimes.

    python -m benchmarks.curve sixconv

Each ratio asks for that many times fewer MACs and parameters, fitted to the bundled calibration images, without
training. Every file is evaluated on the bundled test images by the runtime that runs it, and all files of a runtime are
measured side by side against the dense one. The record is ``curve-MODEL``, with a picture; it needs a quiet machine and
a few minutes for each ratio.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import CALIBRATION, TEST, calibration, taken, trained
from benchmarks.common.picture import OPEN, picture
from benchmarks.common.record import Record, made
from benchmarks.common.variants import RUNTIMES, Variant, compare
from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters.executed import executed_macs

RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
CALIBRATION_IMAGES = 2048
#: By the ending of its files: a runtime's name in the record, the colour and marker of its curve, and where labels go.
CURVES = {
    "onnx": ("onnxruntime", "#0072b2", "o", (6, -11)),
    "tflite": ("litert", "#d55e00", "s", (-17, 7)),
}
PACKAGES = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


def options(parser: argparse.ArgumentParser) -> None:
    """Which network, at which ratios, measured how well."""
    add_options(parser, "seconds", "images", seconds=5.0)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, metavar="R")


def measure(arguments: argparse.Namespace) -> Record:
    """Everything about the dense network and each ratio that can be reached."""
    name = arguments.model
    _, dense = trained(name)
    data = calibration(CALIBRATION_IMAGES)
    hubs, skipped = {1.0: dense}, []
    for ratio in sorted(arguments.ratios):
        print(f"compress {ratio:g}x", flush=True)
        try:
            hubs[ratio] = compress(dense, model=name, ratios={"macs": ratio, "parameters": ratio}, data=data).hub
        except UserError as error:
            skipped.append({"ratio": ratio, "reason": str(error)})
    curves: dict[str, Any] = {}
    for target, (runtime, *_) in CURVES.items():
        variants = [
            Variant.of(hub, {"asked": ratio, "macs": sum(executed_macs(hub, target).values())})
            for ratio, hub in hubs.items()
        ]
        report = compare(variants, target, seconds=arguments.seconds, images=arguments.images)
        curves[runtime] = {"points": [variant.row for variant in variants], "warnings": list(report.warnings)}
    return made(*PACKAGES) | {
        "model": name,
        "machine": dict(report.environment),
        "calibration": taken(CALIBRATION_IMAGES, CALIBRATION),
        "data": taken(arguments.images, TEST),
        "threads": 1,
        "units": {"latency": "second", "top1": "percent", "speedup": "dense over compressed latency"},
        "skipped": skipped,
        "curves": curves,
    }


def draw(result: Record, path: Path) -> None:
    """Top-1 against the median latency: one curve a runtime, dense marked, each point with the ratio asked for."""
    with picture(path, 7.5, 4.6, OPEN) as figure:
        axes = figure.subplots()
        for target, (runtime, colour, marker, offset) in CURVES.items():
            points, title = result["curves"][runtime]["points"], RUNTIMES[target]
            x, y = [1e3 * p["latency"]["median"] for p in points], [p["top1"] for p in points]
            axes.plot(x, y, color=colour, marker=marker, label=title)
            axes.plot(x[0], y[0], color=colour, marker="*", markersize=15, linestyle="none", label=f"{title}, dense")
            for point, at in zip(points[1:], zip(x[1:], y[1:], strict=True), strict=True):
                axes.annotate(f"{point['asked']:g}x", at, offset, textcoords="offset points", fontsize=8, color=colour)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.set(xlabel="median latency of one image, milliseconds (1 thread)", ylabel="top-1, percent")
        axes.set_title(f"{result['model']}: asked for R times fewer MACs and parameters, no training", loc="left")
        axes.legend(frameon=False)


EXPERIMENT = Experiment("curve", __doc__, "curve-{model}", measure, options, draw=draw)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
