"""Time and memory of QSFM's similarity of one layer of 512 channels over 64 images, and of the order of removal.

    python -m benchmarks.similarity

The maps are random, of 28 x 28 pixels (VGG-16's at 224 x 224) and of 14 x 14, and come 16 images at a time. Each
measure runs in a process of its own, on two threads, three times; the seconds are the median, and the memory is what
the process has grown by at most, one such piece included. The record is ``similarity``, with a page.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment
from benchmarks.common.memory import forget_peak, resident
from benchmarks.common.record import Record, day, machine, made

CHANNELS, IMAGES, PIECE, THREADS, TIMES = 512, 64, 16, 2, 3
SIZES = (28, 14)
PACKAGES = ("torch", "numpy")


def measure(_: argparse.Namespace) -> Record:
    """Every measure at every size."""
    from edgekron.pruning.similarity import Measure

    context, rows = multiprocessing.get_context("spawn"), []
    for size in SIZES:
        for name in get_args(Measure):
            queue = context.Queue()
            process = context.Process(target=one, args=(name, size, queue))
            process.start()
            rows.append(queue.get())
            process.join()
    return made(*PACKAGES) | {
        "machine": machine(load=True),
        "settings": {"channels": CHANNELS, "images": IMAGES, "piece": PIECE, "threads": THREADS, "times": TIMES},
        "rows": rows,
    }


def one(measure: Any, size: int, queue: Any) -> None:
    """Puts the row of one measure at one size."""
    import torch

    from edgekron.pruning.similarity import greedy_order, map_similarity

    torch.set_num_threads(THREADS)

    def pieces() -> Iterator[np.ndarray]:
        for piece in range(IMAGES // PIECE):
            rng = np.random.default_rng(piece)
            yield rng.standard_normal((PIECE, CHANNELS, size * size), dtype=np.float32)

    # What libraries take once is not what comparing takes.
    map_similarity(lambda: iter([np.random.default_rng(0).random((2, 64, 64), np.float32)]), measure)
    start = time.perf_counter()
    drawn = sum(piece.nbytes for _ in range(2) for piece in pieces())
    drawing = time.perf_counter() - start
    forget_peak()
    before = resident("VmRSS")
    compared, ordered = [], []
    for _ in range(TIMES):
        start = time.perf_counter()
        similarity, dead = map_similarity(pieces, measure)
        middle = time.perf_counter()
        order, _ = greedy_order(similarity, dead, np.ones(CHANNELS))
        compared.append(middle - start - drawing)
        ordered.append(time.perf_counter() - middle)
    queue.put(
        {
            "measure": measure,
            "size": size,
            "similarity_seconds": statistics.median(compared),
            "order_seconds": statistics.median(ordered),
            "removed": len(order),
            "maps_bytes": drawn // 2,
            "peak_growth_bytes": max(0, resident("VmHWM") - before),
        }
    )


def table(result: Record) -> str:
    """The rows as Markdown."""
    how = result["settings"]
    setting = (
        f"`{result['command']}`, {day(result)}: {how['channels']} channels, {how['images']} images, "
        f"{how['threads']} threads, medians of {how['times']}; {result['machine']}; torch "
        f"{result['versions']['torch']}. Memory is what the process has grown by at most; all maps at once would take "
        "what the last column says."
    )
    heads = ["measure", "maps", "similarity", "order of removal", "memory", "all maps"]
    lines = ["# Similarity of a wide layer", "", setting, "", *tables.head(heads)]
    for row in result["rows"]:
        cells = [row["measure"].upper(), f"{row['size']} x {row['size']}", f"{row['similarity_seconds']:.2f} s"]
        cells += [f"{row['order_seconds']:.2f} s", f"{row['peak_growth_bytes'] / 1e6:.0f} MB"]
        lines.append(tables.row([*cells, f"{row['maps_bytes'] / 1e6:.0f} MB"]))
    return "\n".join(lines) + "\n"


EXPERIMENT = Experiment("similarity", __doc__, "similarity", measure, table=table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
