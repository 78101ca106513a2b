"""``edgekron bench``: latency and memory of model files, side by side."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.files import refuse_existing

from ._output import print_table, progress_bars
from .model_files import model_files, write_json

if TYPE_CHECKING:
    import argparse

    from edgekron.runtimes import Interval, Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILEs, and how long and where to measure."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".onnx or .tflite; the first is the reference")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads and cores for each file (1)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="times that the files take turns (20)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="timed seconds for each file (4)")
    parser.add_argument("--on", default="local", metavar="DEVICE", help="where to run: local")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything, raw samples included")
    parser.add_argument("--force", action="store_true", help="replace OUT")


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints one row a file, and writes the JSON report."""
    from edgekron.runtimes import bench
    from edgekron.runtimes.devices import open_device

    files = model_files(arguments.files)
    if arguments.json:
        refuse_existing(arguments.json, arguments.force)
    with closing(open_device(arguments.on)) as device, progress_bars() as bars:
        report = bench(
            files,
            threads=arguments.threads,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            device=device,
            progress=lambda done, total, _: bars("measuring", done, total),
        )
    if arguments.json:
        write_json(arguments.json, report.to_json(), arguments.force)
    _print_latency(report)
    _print_memory(report)
    for warning in report.warnings:
        sys.stderr.write(f"note: {warning}\n")
    return 0


def _print_latency(report: Report) -> None:
    rows = [
        [
            row["file"],
            row["runtime"],
            *(_duration(row[name]) for name in ("median", "mad", "p5", "p95")),
            _speedup(row["speedup"]),
        ]
        for row in report.table()
    ]
    plural = "" if report.threads == 1 else "s"
    print_table(
        f"Latency, {report.threads} thread{plural}, {report.device}",
        ["<file", "<runtime", "median", "MAD", "5 %", "95 %", "times as fast"],
        rows,
        "In brackets: 95 % interval. 5 % and 95 % are percentiles of single inferences.",
    )


def _print_memory(report: Report) -> None:
    rows = []
    for row in report.table():
        memory = row["memory"]
        numbers = (memory.file, memory.runtime, memory.loaded, memory.peak, memory.steady)
        megabytes = ("-" if number is None else f"{number / 1e6:.2f}" for number in numbers)
        rows.append([row["file"], _duration(row["cold"]), _duration(row["first"]), *megabytes])
    print_table(
        "Cold start, and memory in MB (1,000,000 bytes)",
        ["<file", "ready in", "first run", "file", "runtime only", "loaded", "peak", "steady"],
        rows,
        "Resident memory of the whole process; the model's own share is steady less runtime only.",
    )


def _duration(seconds: float) -> str:
    """Three significant digits in s, ms or us."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds * 1e6:#.3g}".rstrip(".") + " us"


def _speedup(interval: Interval | None) -> str:
    if interval is None:
        return "reference"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
