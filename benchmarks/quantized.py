"""Every type of file of a dense and a compressed network: size, accuracy, SQNR and latency in both runtimes.

    python -m benchmarks.quantized sixconv [--ratio 4 --params 4]

The network is compressed on the bundled calibration images. It and the dense one are exported in every type, int8 also
without rebalancing the factors; what rebalancing gains is measured on every family too, decomposed by weights alone.
SQNR and agreement compare a file with the float32 file of the same network. All files of a runtime are timed in one
interleaved run. The record is ``quantized``, with a page.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import CALIBRATION, TEST, calibration, taken, trained
from benchmarks.common.record import Record, Row, day, made
from benchmarks.common.variants import RUNTIMES, Variant, files_of, top1_of, write_hub
from edgekron.compression.compressor import compress
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import DTYPES, Quantization
from edgekron.exporters.verify.compare import difference
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.runtimes import Measuring, Report, bench
from edgekron.runtimes.agent import backends
from edgekron.runtimes.statistics import speedup

PACKAGES = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "numpy")
#: Images whose outputs are compared, and how many are run at once.
COMPARED, BATCH = 1000, 100
#: Families for rebalancing, and how many times fewer MACs each is asked for.
FAMILIES, FAMILY_RATIO = ("low-rank", "tucker", "cp", "tt", "tr"), 2.0


def options(parser: argparse.ArgumentParser) -> None:
    """Which network, how much smaller, measured how well."""
    add_options(parser, "ratio", "seconds", "images", ratio=4.0)
    parser.add_argument("--params", type=float, default=4.0, metavar="R", help="R times fewer parameters (default: 4)")
    parser.add_argument("--calibration", type=int, default=256, help="images for the ranges of int8 (default: 256)")


def measure(arguments: argparse.Namespace) -> Record:
    """Both networks in every type, in both runtimes."""
    name = arguments.model
    _, dense = trained(name)
    data, ranges = calibration(len(datasets.load(CALIBRATION))), calibration(arguments.calibration)
    ratios = {"macs": arguments.ratio, "parameters": arguments.params}
    hubs = {"dense": dense, "compressed": compress(dense, model=name, ratios=ratios, data=data).hub}
    rows: list[Row] = []
    reports: list[Report] = []
    for target in RUNTIMES:
        variants = in_every_type(hubs, ranges, target)
        with files_of(variants, target) as files:
            reports.append(bench(files, Measuring(threads=1, seconds=arguments.seconds)))
            add_times(variants, reports[-1])
            add_scores(variants, files, arguments.images)
        rows += [variant.row for variant in variants]
    return made(*PACKAGES) | {
        "model": name,
        "ratios": ratios,
        "machine": dict(reports[-1].environment),
        "calibration": taken(arguments.calibration, CALIBRATION),
        "data": taken(arguments.images, TEST),
        "threads": 1,
        "warnings": [warning for report in reports for warning in report.warnings],
        "units": {
            "latency": "second",
            "top1": "percent",
            "sqnr_db": "of the scores, against the float32 file of the same network",
            "agreement": "percent of images in the class of that file",
        },
        "rows": rows,
        "rebalancing": gains(name, dense, ranges, arguments.images),
    }


def in_every_type(hubs: dict[str, Hub], ranges: list[np.ndarray], target: str) -> list[Variant]:
    """The networks in every type, the dense one in float32 first; int8 of a compressed one also not rebalanced."""
    made_of = []
    for network, hub in hubs.items():
        for dtype in DTYPES:
            for rebalanced in (True, False) if (network, dtype) == ("compressed", "int8") else (True,):
                row = {"runtime": RUNTIMES[target], "network": network, "dtype": dtype, "rebalanced": rebalanced}
                how = Quantization(dtype, ranges if dtype == "int8" else (), rebalanced=rebalanced)
                write = partial(write_hub, hub) if dtype == "float32" else partial(export, hub, how=how)
                made_of.append(Variant(row, write))
    return made_of


def add_times(variants: list[Variant], report: Report) -> None:
    """Latency of each file, and how fast it is beside the dense network in float32 and in the file's own type."""
    rounds: dict[tuple[str, str], Any] = {}
    for variant, file in zip(variants, report.files, strict=True):
        rounds.setdefault((variant.row["network"], variant.row["dtype"]), file.rounds)
    for variant, file in zip(variants, report.files, strict=True):
        variant.row["latency"] = asdict(file.latency)
        for name, dtype in (("over_dense_float32", "float32"), ("over_dense_same_type", variant.row["dtype"])):
            variant.row[name] = asdict(speedup(rounds["dense", dtype], file.rounds))


def add_scores(variants: list[Variant], files: list[Path], images: int) -> None:
    """Size and top-1 of each file, and the difference of its scores from those of the same network in float32."""
    reference: dict[str, np.ndarray] = {}
    for variant, file in zip(variants, files, strict=True):
        row = variant.row
        print(f"{row['runtime']}: {row['network']} {row['dtype']}", flush=True)
        scores = outputs(file, images)
        found = difference("", "", reference.setdefault(row["network"], scores), scores)
        exact = row["dtype"] == "float32"
        row |= {"bytes": file.stat().st_size, "top1": top1_of(file, images)}
        row["sqnr_db"] = None if exact else found.sqnr_db
        row["agreement"] = None if exact else 100 * (found.agreement or 0.0)


def gains(name: str, dense: Hub, ranges: list[np.ndarray], images: int) -> list[Row]:
    """SQNR and agreement of int8 in LiteRT by family, with the factors as they are and rebalanced."""
    rows = []
    for family in FAMILIES:
        print(f"rebalancing: {family}", flush=True)
        hub = compress(dense, model=name, ratios={"macs": FAMILY_RATIO}, method=family).hub
        row: Row = {"family": family, "ratio": FAMILY_RATIO}
        with tempfile.TemporaryDirectory(prefix="edgekron-quantized-") as folder:
            path = Path(folder) / "family.tflite"
            write_hub(hub, path)
            reference = outputs(path, images)
            for key, rebalanced in (("as_they_are", False), ("rebalanced", True)):
                export(hub, path, ExportSettings(Quantization("int8", ranges, rebalanced=rebalanced)), force=True)
                found = difference("", "", reference, outputs(path, images))
                row[key] = {"sqnr_db": found.sqnr_db, "agreement": 100 * (found.agreement or 0.0)}
        rows.append(row)
    return rows


def outputs(path: Path, images: int) -> np.ndarray:
    """The scores of a file for the first test images."""
    session, test = backends.load(path), datasets.load(TEST).subset(min(images, COMPARED))
    return np.concatenate([backends.run_nchw(session, x)[0] for x, _ in test.batches(BATCH)])


def table(result: Record) -> str:
    """The rows as Markdown."""
    ratios, versions = result["ratios"], result["versions"]
    title = (
        f"# {result['model']} in every type, dense and at {ratios['macs']:g}x fewer MACs and "
        f"{ratios['parameters']:g}x fewer parameters"
    )
    measured = (
        f"`{result['command']}`, {day(result)}; ranges of int8 from {result['calibration']}; {result['data']}; "
        f"ONNX Runtime {versions['onnxruntime']}, LiteRT {versions['ai-edge-litert']}, one thread, all files of a "
        "runtime in one interleaved run; times as fast with their 95 % interval. SQNR and agreement are those of the "
        "scores against the float32 file of the same network."
    )
    heads = ["network", "type", "kB", "top-1 %", "SQNR dB", "same class %", "median us"]
    heads += ["as fast as dense float32", "as fast as dense in this type"]
    lines = [title, "", measured]
    for runtime in RUNTIMES.values():
        lines += ["", f"## {runtime}", "", *tables.head(heads)]
        lines += [tables.row(cells(row)) for row in result["rows"] if row["runtime"] == runtime]
    about = f"int8 in LiteRT by family at {FAMILY_RATIO:g}x fewer MACs, decomposed by weights alone."
    lines += ["", "## What rebalancing the factors gains", "", about, ""]
    heads = ["family", "SQNR dB as they are", "rebalanced", "same class % as they are", "rebalanced"]
    lines += tables.head(heads)
    for row in result["rebalancing"]:
        found = [row[how][key] for key in ("sqnr_db", "agreement") for how in ("as_they_are", "rebalanced")]
        lines.append(tables.row([row["family"], *(f"{value:.1f}" for value in found)]))
    return "\n".join([*lines, ""])


def cells(row: Row) -> list[str]:
    """One file's line."""
    found = [row["network"], row["dtype"] + ("" if row["rebalanced"] else ", factors not rebalanced")]
    found += [f"{row['bytes'] / 1e3:.0f}", f"{row['top1']:.2f}"]
    found += ["" if row[key] is None else f"{row[key]:.1f}" for key in ("sqnr_db", "agreement")]
    found += [f"{1e6 * row['latency']['median']:.0f}", tables.interval(row["over_dense_float32"])]
    return [*found, tables.interval(row["over_dense_same_type"]) if row["network"] == "compressed" else ""]


EXPERIMENT = Experiment("quantized", __doc__, "quantized", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
