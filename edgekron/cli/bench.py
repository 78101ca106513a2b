"""``edgekron bench``: latency and memory of model files, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

    from edgekron.runtimes import Report
    from edgekron.runtimes.statistics import Interval

HELP = "measure latency and memory of .onnx and .tflite files, each against the first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".onnx or .tflite; the first is the reference")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads and cores for each file (1)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="times that the files take turns (20)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="timed seconds for each file (4)")
    parser.add_argument("--on", default="local", metavar="DEVICE", help="where to run: local")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything, raw samples included")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints one row a file, and writes the JSON report."""
    from contextlib import closing

    from rich.console import Console
    from rich.progress import Progress

    from edgekron.cli.model_files import model_files, write_json
    from edgekron.files import refuse_existing
    from edgekron.runtimes import RuntimeFailure, bench
    from edgekron.runtimes.devices import open_device

    files = model_files(arguments.files)
    if arguments.json:
        refuse_existing(arguments.json, arguments.force)
    errors = Console(stderr=True)
    try:
        with (
            closing(open_device(arguments.on)) as device,
            Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar,
        ):
            task = bar.add_task("starting")
            report = bench(
                files,
                threads=arguments.threads,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                device=device,
                progress=lambda done, total, text: bar.update(task, completed=done, total=total, description=text),
            )
    except RuntimeFailure as failure:
        raise UserError(str(failure)) from None
    if arguments.json:
        write_json(arguments.json, report.to_json(), arguments.force)
    console = Console()
    console.print(latency_table(report))
    console.print(memory_table(report))
    for warning in report.warnings:
        errors.print(f"[yellow]Note:[/] {warning}", highlight=False)
    return 0


def latency_table(report: Report) -> Table:
    """Median, spread and speed-up of each file."""
    from rich.table import Table

    plural = "" if report.threads == 1 else "s"
    table = Table(title=f"Latency, {report.threads} thread{plural}, {report.device}")
    for name in ("file", "runtime"):
        table.add_column(name, overflow="fold")
    for name in ("median", "MAD", "5 %", "95 %", "first", "start to ready", "times as fast (95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.table():
        times = [row[name] for name in ("median", "mad", "p5", "p95", "first", "cold")]
        table.add_row(row["file"], row["runtime"], *map(duration, times), _speedup(row["speedup"]))
    return table


def memory_table(report: Report) -> Table:
    """The five numbers of each file."""
    from rich.table import Table

    table = Table(title="Memory, MB (1,000,000 bytes)")
    table.add_column("file", overflow="fold")
    names = {
        "file": "file",
        "runtime": "runtime imported",
        "loaded": "after load",
        "peak": "peak",
        "steady": "steady",
    }
    for title in names.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.table():
        numbers = (getattr(row["memory"], name) for name in names)
        table.add_row(row["file"], *("-" if number is None else f"{number / 1e6:.2f}" for number in numbers))
    return table


def duration(seconds: float) -> str:
    """Three significant digits in a unit that suits: s, ms or us."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 1000 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _speedup(interval: Interval | None) -> str:
    if interval is None:
        return "reference"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
