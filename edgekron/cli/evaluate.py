"""``edgekron evaluate``: top-1 accuracy of model files, in the runtimes that run them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.errors import UserError
from edgekron.files import refuse_existing

from .shared.model_files import inputs_of, model_files, write_json
from .shared.output import print_table, progress_bars

if TYPE_CHECKING:
    import argparse

_BATCH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILEs and the images."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".onnx or .tflite; the first is the reference")
    parser.add_argument("--data", required=True, metavar="DATA", help="such as fashion-mnist:test, or a folder")
    parser.add_argument("--limit", type=int, metavar="N", help="evaluate N images drawn at random, always the same")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (all cores)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures")
    parser.add_argument("--force", action="store_true", help="replace OUT")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates every file on the same images and prints one row each."""
    from edgekron.models import datasets
    from edgekron.runtimes import agreement, top1
    from edgekron.runtimes.agent.environment import allowed_cores

    files = model_files(arguments.files)
    if arguments.json:
        refuse_existing(arguments.json, arguments.force)
    threads = arguments.threads if arguments.threads is not None else len(allowed_cores() or [0])
    if threads < 1 or (arguments.limit is not None and arguments.limit < 1):
        raise UserError("--threads and --limit must be at least 1.")
    inputs = inputs_of(files)
    if inputs:
        data = datasets.load(arguments.data, shape=inputs[0].image, dtype=inputs[0].dtype)
    else:
        data = datasets.load(arguments.data)
    if arguments.limit is not None:
        data = data.subset(arguments.limit)
    results = []
    with progress_bars() as bars:
        for index, file in enumerate(files):
            show = partial(bars, str(file), total=len(data))
            taken = data.fed_to(inputs[index]) if inputs else data
            results.append(top1(file, taken.batches(_BATCH), threads=threads, progress=show))
    agreements = [agreement(results[0], result) for result in results]
    if arguments.json:
        rows = [{**r.to_json(), "agreement": a} for r, a in zip(results, agreements, strict=True)]
        write_json(arguments.json, {"data": data.name, "images": len(data), "files": rows}, arguments.force)
    print_table(
        f"Top-1 on {len(data):,} images of {data.name}",
        ["<file", "<runtime", "top-1", "correct", "same class as the first"],
        [
            [r.file, f"{r.runtime['runtime']} {r.runtime['version']}", f"{r.top1:.2%}", f"{r.correct:,}", f"{same:.2%}"]
            for r, same in zip(results, agreements, strict=True)
        ],
    )
    return 0
