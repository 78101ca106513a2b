"""A detector with real weights that nobody here wrote, through all commands.

    pip download --no-deps ddddocr && unzip ddddocr-*.whl ddddocr/common_det.onnx
    python -m benchmarks.detector ddddocr/common_det.onnx [--ratio 2]

The network finds characters in images (a YOLOX of 5 million weights, 416x416, bytes, blue first). All images are drawn
by ``common.scenes``; no image calibrates and judges. Every file is made by ``edgekron`` as a user would, verified,
benched and asked to find the characters that were drawn. The record is ``detector``, with a page.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import table as tables
from benchmarks.common.commands import Commands
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.record import Record, Row, day, made
from benchmarks.common.scenes import Count, boxes_in, draw, scene
from benchmarks.common.variants import RUNTIMES
from edgekron.runtimes.agent import backends

PACKAGES = ("onnxruntime", "ai-edge-litert", "ai-edge-quantizer")
SIZE, TEST, FIRST_TEST = 416, 100, 10_000
IMAGES = ("--data", "images", "--fit", "pad", "--pixels", "byte", "--channels", "bgr")
HEADS = ["runtime", "network", "type", "MB", "found", "elsewhere", "error", "SQNR dB", "median ms", "times as fast"]
#: What ``verify --sqnr`` asks of an int8 file, in dB: little, as positions and scores share one output and its scale.
SQNR = 10


def options(parser: argparse.ArgumentParser) -> None:
    """Which file, how much smaller, measured how well."""
    parser.add_argument("network", type=Path, help="common_det.onnx of the package ddddocr")
    add_options(parser, "ratio", "seconds", model=False, seconds=4.0)
    parser.add_argument("--images", type=int, default=64, metavar="N", help="drawn to calibrate with (default: 64)")


def measure(arguments: argparse.Namespace) -> Record:
    """Everything: the compressed network, and a row for each file."""
    with tempfile.TemporaryDirectory(prefix="edgekron-detector-") as folder:
        (Path(folder) / "detector.onnx").write_bytes(arguments.network.read_bytes())
        draw(Path(folder) / "images", arguments.images)
        run = Commands(Path(folder))
        inspected = run.json("inspect", "detector.onnx")
        report = run.json("compress", "detector.onnx", "--ratio", f"{arguments.ratio:g}", *IMAGES, "-o", "small")
        rows: list[Row] = []
        for target in RUNTIMES:
            found, benched = in_runtime(run, target, arguments.seconds)
            rows += found
    return made(*PACKAGES) | {
        "network": "common_det.onnx of ddddocr",
        "machine": benched["environment"],
        "warnings": benched["warnings"],
        "inspected": inspected["totals"],
        "totals": report["totals"],
        "images": {"calibration": arguments.images, "test": TEST},
        "commands": run.ran,
        "rows": rows,
    }


def in_runtime(run: Commands, target: str, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """A row for each file of one runtime, made, verified, timed and judged; and the report of their latency."""
    rows = []
    for network, source in (("dense", "detector.onnx"), ("compressed", "small")):
        for dtype in ("float32", "int8"):
            file = f"{network}-{dtype}.{target}"
            data = IMAGES if dtype == "int8" else ()
            run("export", source, "--to", target, "--dtype", dtype, *data, "-o", file)
            bound = ("--sqnr", f"{SQNR}", *IMAGES) if dtype == "int8" else ("--tolerance", "1e-4")
            verdict = run.json("verify", source, file, *bound)
            row = {"file": file, "network": network, "dtype": dtype, "runtime": RUNTIMES[target], **verdict}
            rows.append({key: value for key, value in row.items() if key != "layers"})
    report = run.measured("bench", *(row["file"] for row in rows), "--seconds", f"{seconds:g}")
    for row, found, speedup in zip(rows, report["files"], [None, *report["speedups"]], strict=True):
        row |= {"bytes": found["memory"]["file"], "memory": found["memory"], "speedup": speedup}
        row["median_ms"] = 1e3 * found["latency"]["median"]
        row["found"] = vars(_found(run.folder / row["file"]))
    return rows, report


def _found(file: Path) -> Count:
    """How many characters of the test images a file finds, by boxes that overlap them by half or more."""
    session, count = backends.load(file), Count()
    for seed in range(FIRST_TEST, FIRST_TEST + TEST):
        image, boxes = scene(seed, (SIZE, SIZE))
        x = np.asarray(image, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
        (output,) = backends.run_nchw(session, x)
        count.add(boxes, boxes_in(output[0], SIZE))
    session.close()
    return count


def table(result: Record) -> str:
    """The record as Markdown."""
    totals, images = result["totals"], result["images"]
    inspected = result["inspected"]
    about = (
        f"`{result['network']}` finds characters in images: {inspected['parameters']:,} weights, "
        f"{inspected['macs'] / 1e9:.2f} G MACs. It was compressed to {totals['macs']['ratio']:.2f}x fewer MACs "
        f"({totals['parameters']['ratio']:.2f}x fewer parameters) with {images['calibration']} drawn images and no "
        f"training. *Found* counts the characters drawn in {images['test']} other images that a box of score 0.5 "
        "covers by half or more, *elsewhere* the boxes that cover none. Error and SQNR are those of `edgekron verify` "
        "against the network that the file was exported from. One thread; in brackets 95 % intervals."
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# A detector, the whole way",
        "",
        about,
        "",
        f"`python -m benchmarks.detector`, {day(result)}, {versions}.",
        "",
        *tables.head(HEADS),
    ]
    for row in result["rows"]:
        found, speedup = row["found"], row["speedup"]
        exact = row["dtype"] == "float32"
        cells = [row["runtime"], row["network"], row["dtype"], f"{row['bytes'] / 1e6:.2f}"]
        cells += [f"{found['found']} of {found['drawn']}", str(found["false"])]
        cells += [f"{row['worst_relative']:.1e}" if exact else "", "" if exact else f"{row['sqnr_db']:.1f}"]
        cells.append(f"{row['median_ms']:.1f}")
        cells.append(
            "1" if speedup is None else f"{speedup['value']:.2f} [{speedup['low']:.2f}, {speedup['high']:.2f}]"
        )
        lines.append(tables.row(cells))
    lines += ["", "The commands, in a folder with the network as `detector.onnx` and the images in `images/`:", ""]
    lines += [f"    {entry['command'].removesuffix(' --json')}" for entry in result["commands"]]
    return "\n".join([*lines, ""])


EXPERIMENT = Experiment("detector", __doc__, "detector", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
