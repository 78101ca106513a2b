"""Top-1 against latency of a bundled network at several compression ratios, in both runtimes.

    python benchmarks/curve.py sixconv

Each ratio asks for that many times fewer MACs and parameters, fitted to the bundled calibration images, without
training. Every file is evaluated on the bundled test images by the runtime that runs it, and all files of a runtime are
measured side by side against the dense one. It writes ``benchmarks/results/curve-MODEL.json`` and
``docs/curve-MODEL.svg``, and needs a quiet machine and a few minutes for each ratio.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from edgekron import graph, models
from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters.executed import executed_macs
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.files import write_file
from edgekron.models import datasets
from edgekron.runtimes import Measuring, bench, top1
from edgekron.runtimes.agent.environment import allowed_cores

if TYPE_CHECKING:
    from edgekron.graph import Hub

ROOT = Path(__file__).resolve().parent.parent
RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
CALIBRATION, TEST = "fashion-mnist:calibration", "fashion-mnist:test"
CALIBRATION_IMAGES, BATCH = 2048, 32
#: By runtime: the ending of its files, its name, the colour and marker of its curve, and where its labels go.
RUNTIMES = {
    "onnxruntime": ("onnx", "ONNX Runtime", "#0072b2", "o", (6, -11)),
    "litert": ("tflite", "LiteRT", "#d55e00", "s", (-17, 7)),
}
PACKAGES = ("edgekron", "torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


def main() -> int:
    """Measures and writes; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as sixconv")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, metavar="R")
    parser.add_argument("--seconds", type=float, default=5.0, help="timed seconds a file (default: 5)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder to write below (default: the repository)")
    arguments = parser.parse_args()
    try:
        result = measure(arguments.model, sorted(arguments.ratios), arguments.seconds, arguments.images)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    result["command"] = shlex.join(["python", "benchmarks/curve.py", *sys.argv[1:]])
    place = arguments.output / "benchmarks" / "results" / f"curve-{arguments.model}.json"
    write_file(place, json.dumps(result, indent=1) + "\n", force=True)
    figure = arguments.output / "docs" / f"curve-{arguments.model}.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw(result, figure)
    print(f"{place}\n{figure}")
    return 0


def measure(model: str, ratios: list[float], seconds: float, images: int) -> dict[str, Any]:
    """Everything about the dense network and each ratio that can be reached."""
    facts = models.facts(model) if model in models.NETWORKS else None
    if facts is None:
        raise UserError(f"there is no trained network {model!r}; see `edgekron models`.")
    dense = graph.load(models.load(model), input_shape=models.NETWORKS[model].input_shape)
    calibration = [x for x, _ in datasets.load(CALIBRATION).subset(CALIBRATION_IMAGES).batches(BATCH)]
    hubs: dict[float, Hub] = {1.0: dense}
    skipped = []
    for ratio in ratios:
        print(f"compress {ratio:g}x", flush=True)
        try:
            hubs[ratio] = compress(
                dense, model=model, ratios={"macs": ratio, "parameters": ratio}, data=calibration
            ).hub
        except UserError as error:
            skipped.append({"ratio": ratio, "reason": str(error)})
    test = datasets.load(TEST).subset(images)
    threads = len(allowed_cores() or [0])
    curves: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgekron-curve-") as folder:
        for key, (ending, title, *_) in RUNTIMES.items():
            files = {ratio: Path(folder) / f"{model}-{ratio:g}x.{ending}" for ratio in hubs}
            for ratio, hub in hubs.items():
                (export_onnx if ending == "onnx" else export_tflite)(hub, files[ratio])
            print(f"measure in {title}", flush=True)
            report = bench(list(files.values()), Measuring(threads=1, seconds=seconds))
            speedups = [None, *(asdict(interval) for interval in report.speedups)]
            points = []
            for (ratio, hub), measured, speedup in zip(hubs.items(), report.files, speedups, strict=True):
                print(f"evaluate {files[ratio].name}", flush=True)
                points.append(
                    {
                        "asked": ratio,
                        "macs": sum(executed_macs(hub, ending).values()),
                        "bytes": files[ratio].stat().st_size,
                        "top1": 100 * top1(files[ratio], test.batches(100), threads=threads).top1,
                        "latency": asdict(measured.latency),
                        "speedup": speedup,
                    }
                )
            curves[key] = {"points": points, "warnings": list(report.warnings)}
    return {
        "model": model,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": dict(report.environment),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "calibration": f"{sum(map(len, calibration))} images of {CALIBRATION}",
        "data": f"{len(test)} images of {TEST}",
        "threads": 1,
        "units": {"latency": "second", "top1": "percent", "speedup": "dense over compressed latency"},
        "skipped": skipped,
        "curves": curves,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Top-1 against the median latency: one curve a runtime, dense marked, each point with the ratio asked for."""
    with mpl.rc_context(
        {"svg.hashsalt": "edgekron", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.subplots()
        for key, (_, title, colour, marker, offset) in RUNTIMES.items():
            points = result["curves"][key]["points"]
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
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
