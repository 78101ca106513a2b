"""Versions of one network beside each other: cost, score and speed.

Every version becomes a file. The files of one runtime are timed in one interleaved run, each against the first, which
is the dense network's, and scored by the runtime that runs them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.runtimes import Measuring, Report, bench, top1

from .networks import TEST
from .record import Row

#: The runtime of a file, by its ending.
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}
EXPORTS: dict[str, Callable[[Hub, Path], object]] = {"onnx": export_onnx, "tflite": export_tflite}


@dataclass(frozen=True)
class Variant:
    """One version of a network: a row of the record, and a function that writes the version to a file."""

    row: Row
    write: Callable[[Path], object]

    @classmethod
    def of(cls, hub: Hub, row: Row) -> Variant:
        """The version that a hub is, in float32."""
        return cls(row, partial(write_hub, hub))


def write_hub(hub: Hub, path: Path) -> None:
    """Writes a hub in float32, in the format that the ending of ``path`` names."""
    EXPORTS[path.suffix.removeprefix(".")](hub, path)


@contextmanager
def files_of(variants: Sequence[Variant], target: str) -> Iterator[list[Path]]:
    """The files of the variants, in a folder that vanishes in the end."""
    with tempfile.TemporaryDirectory(prefix="edgekron-benchmark-") as folder:
        files = [Path(folder) / f"{index}.{target}" for index in range(len(variants))]
        for variant, file in zip(variants, files, strict=True):
            variant.write(file)
        yield files


def compare(variants: Sequence[Variant], target: str, *, seconds: float, images: int = 0, suffix: str = "") -> Report:
    """Measures the file of each variant in the runtime of ``target``, and writes the results into the variants' rows.

    A row gets ``bytes``, ``latency``, ``speedup`` (over the first variant) and, if ``images`` test images are asked
    for, ``top1``; every name ends with ``suffix``. Each file is timed for ``seconds`` on one thread.
    """
    with files_of(variants, target) as files:
        print(f"{len(files)} files in {RUNTIMES[target]}", flush=True)
        report = bench(files, Measuring(threads=1, seconds=seconds))
        for variant, file in zip(variants, files, strict=True):
            variant.row[f"bytes{suffix}"] = file.stat().st_size
            if images:
                variant.row[f"top1{suffix}"] = top1_of(file, images)
    latencies, speedups = [asdict(file.latency) for file in report.files], [asdict(one) for one in report.speedups]
    enter_times([variant.row for variant in variants], latencies, speedups, suffix)
    return report


def enter_times(rows: Sequence[Row], latencies: Sequence[Row], speedups: Sequence[Row], suffix: str) -> None:
    """Writes latencies, and the speedups of all rows but the first over that one, into the rows."""
    for row, latency, speedup in zip(rows, latencies, (None, *speedups), strict=True):
        row[f"latency{suffix}"], row[f"speedup{suffix}"] = latency, speedup


def top1_of(file: Path, images: int) -> float:
    """Top-1 in percent of a file on that many test images, in the runtime that runs it."""
    return 100 * top1(file, datasets.load(TEST).subset(images).batches(100), threads=1).top1


def hub_top1(hub: Hub, images: int) -> tuple[float, int]:
    """Top-1 in percent of a hub's ONNX file on that many test images, and the file's size in bytes."""
    with files_of([Variant.of(hub, {})], "onnx") as (file,):
        return top1_of(file, images), file.stat().st_size
