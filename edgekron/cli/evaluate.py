"""``edgekron evaluate``: top-1 accuracy of model files, in the runtimes that run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError

if TYPE_CHECKING:
    import argparse

HELP = "top-1 accuracy of .onnx and .tflite files on labelled images"

_BATCH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".onnx or .tflite; the first is the reference")
    parser.add_argument("--data", required=True, metavar="DATA", help="such as fashion-mnist:test, or a folder")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate N images drawn at random, always the same")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (all cores)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates every file on the same images and prints one row each."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from edgekron.cli.model_files import model_files, write_json
    from edgekron.files import refuse_existing
    from edgekron.models import datasets
    from edgekron.runtimes import RuntimeFailure, agreement, top1
    from edgekron.runtimes.environment import allowed_cores

    files = model_files(arguments.files)
    if arguments.json:
        refuse_existing(arguments.json, arguments.force)
    threads = arguments.threads if arguments.threads is not None else len(allowed_cores() or [0])
    if threads < 1 or (arguments.limit is not None and arguments.limit < 1):
        raise UserError("--threads and --limit must be at least 1.")
    errors = Console(stderr=True)
    results = []
    try:
        data = datasets.load(arguments.data)
        if arguments.limit is not None:
            data = data.subset(arguments.limit)
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bar:
            for file in files:
                task = bar.add_task(file.name, total=len(data))
                results.append(
                    top1(
                        file,
                        data.batches(_BATCH),
                        threads=threads,
                        progress=lambda done, task=task: bar.update(task, completed=done),  # type: ignore[misc]
                    )
                )
    except (RuntimeFailure, datasets.DataError) as failure:
        raise UserError(str(failure)) from None
    agreements = [agreement(results[0], result) for result in results]
    if arguments.json:
        rows = [{**r.to_json(), "agreement": a} for r, a in zip(results, agreements, strict=True)]
        write_json(arguments.json, {"data": data.name, "images": len(data), "files": rows}, arguments.force)
    table = Table(title=f"Top-1 on {len(data):,} images of {data.name}")
    for name in ("file", "runtime"):
        table.add_column(name, overflow="fold")
    for name in ("top-1", "correct", "same class as the first"):
        table.add_column(name, justify="right", no_wrap=True)
    for result, same in zip(results, agreements, strict=True):
        runtime = f"{result.runtime['runtime']} {result.runtime['version']}"
        table.add_row(result.file, runtime, f"{result.top1:.2%}", f"{result.correct:,}", f"{same:.2%}")
    Console().print(table)
    return 0
