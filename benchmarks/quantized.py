"""Every type of file of a dense and a compressed network: size, accuracy, SQNR and latency in both runtimes.

    python benchmarks/quantized.py sixconv [--ratio 4 --params 4]

The network is compressed on the bundled calibration images. It and the dense one are exported in every type, int8 also
without rebalancing the factors; what rebalancing gains is measured on every family too, decomposed by weights alone.
SQNR and agreement compare a file with the float32 file of the same network. All files of a runtime are timed in one
interleaved run. It writes ``benchmarks/results/quantized.json`` and ``docs/quantized.md``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from publishing import CALIBRATION, TEST, publish, trained

from edgekron.compression.compressor import compress
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.quantize import DTYPES, Quantization
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.verify.compare import difference
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.runtimes import bench, top1
from edgekron.runtimes.agent import backends
from edgekron.runtimes.statistics import speedup

RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}
PACKAGES = ("edgekron", "torch", "onnx", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "numpy")
#: Images whose outputs are compared, and how many are run at once.
COMPARED, BATCH = 1000, 100
#: Families for rebalancing, and how many times fewer MACs each is asked for.
FAMILIES, FAMILY_RATIO = ("low-rank", "tucker", "cp", "tt", "tr"), 2.0


def main() -> int:
    """Measures and writes; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as sixconv")
    parser.add_argument("--ratio", type=float, default=4.0, metavar="R", help="R times fewer MACs (default: 4)")
    parser.add_argument("--params", type=float, default=4.0, metavar="R", help="R times fewer parameters (default: 4)")
    parser.add_argument("--calibration", type=int, default=256, help="images for the ranges of int8 (default: 256)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds a file (default: 2)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    arguments = parser.parse_args()
    return publish("quantized", lambda: measure(arguments), table)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both networks in every type, in both runtimes."""
    name = arguments.model
    _, dense = trained(name)
    everything = datasets.load(CALIBRATION)
    data = [x for x, _ in everything.batches(32)]
    ratios = {"macs": arguments.ratio, "parameters": arguments.params}
    compressed = compress(dense, model=name, ratios=ratios, data=data).hub
    ranges = [x for x, _ in everything.subset(arguments.calibration).batches(32)]
    test = datasets.load(TEST).subset(arguments.images)
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgekron-quantized-") as folder:
        for target, runtime in RUNTIMES.items():
            made = _files(Path(folder), target, {"dense": dense, "compressed": compressed}, ranges)
            report = bench(list(made), threads=1, seconds=arguments.seconds)
            warnings += report.warnings
            measured = dict(zip(made.values(), report.files, strict=True))
            outputs: dict[Any, np.ndarray] = {}
            for path, (network, dtype, rebalanced) in made.items():
                print(f"{target}: {network} {dtype}", flush=True)
                key = (network, dtype, rebalanced)
                outputs[key] = _outputs(path, test)
                against = difference("", "", outputs[network, "float32", True], outputs[key])
                file = measured[key]
                rows.append(
                    {
                        "runtime": runtime,
                        "network": network,
                        "dtype": dtype,
                        "rebalanced": rebalanced,
                        "bytes": path.stat().st_size,
                        "top1": 100 * top1(path, test.batches(BATCH), threads=1).top1,
                        "sqnr_db": None if dtype == "float32" else against.sqnr_db,
                        "agreement": None if dtype == "float32" else 100 * (against.agreement or 0.0),
                        "latency": asdict(file.latency),
                        "over_dense_float32": asdict(speedup(report.files[0].rounds, file.rounds)),
                        "over_dense_same_type": asdict(speedup(measured["dense", dtype, True].rounds, file.rounds)),
                    }
                )
            environment = dict(report.environment)
        gains = _gains(Path(folder), name, dense, ranges, test)
    return {
        "model": name,
        "ratios": {"macs": arguments.ratio, "parameters": arguments.params},
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": environment,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "calibration": f"{sum(map(len, ranges))} images of {CALIBRATION}",
        "data": f"{len(test)} images of {TEST}",
        "threads": 1,
        "warnings": warnings,
        "units": {
            "latency": "second",
            "top1": "percent",
            "sqnr_db": "of the scores, against the float32 file of the same network",
            "agreement": "percent of images in the class of that file",
        },
        "rows": rows,
        "rebalancing": gains,
    }


def _gains(
    folder: Path, name: str, dense: Hub, ranges: list[np.ndarray], test: datasets.ImageSet
) -> list[dict[str, Any]]:
    """SQNR and agreement of int8 in LiteRT by family, with the factors as they are and rebalanced."""
    rows = []
    for family in FAMILIES:
        print(f"rebalancing: {family}", flush=True)
        hub = compress(dense, model=name, ratios={"macs": FAMILY_RATIO}, method=family).hub
        path = folder / "family.tflite"
        export_tflite(hub, path, force=True)
        reference = _outputs(path, test)
        row: dict[str, Any] = {"family": family, "ratio": FAMILY_RATIO}
        for key, rebalanced in (("as_they_are", False), ("rebalanced", True)):
            export(hub, path, ExportSettings(Quantization("int8", ranges, rebalanced=rebalanced)), force=True)
            found = difference("", "", reference, _outputs(path, test))
            row[key] = {"sqnr_db": found.sqnr_db, "agreement": 100 * (found.agreement or 0.0)}
        rows.append(row)
    return rows


def _files(
    folder: Path, target: str, hubs: dict[str, Hub], ranges: list[np.ndarray]
) -> dict[Path, tuple[str, str, bool]]:
    """(network, type, whether rebalanced) by file; the dense float32 file comes first."""
    made: dict[Path, tuple[str, str, bool]] = {}
    for network, hub in hubs.items():
        path = folder / f"{network}-float32.{target}"
        (export_onnx if target == "onnx" else export_tflite)(hub, path)
        made[path] = (network, "float32", True)
        for dtype in DTYPES[1:]:
            for rebalanced in (True, False) if (network, dtype) == ("compressed", "int8") else (True,):
                path = folder / f"{network}-{dtype}{'' if rebalanced else '-plain'}.{target}"
                how = Quantization(dtype, ranges if dtype == "int8" else (), rebalanced=rebalanced)
                export(hub, path, ExportSettings(how))
                made[path] = (network, dtype, rebalanced)
    return made


def _outputs(path: Path, test: datasets.ImageSet) -> np.ndarray:
    session = backends.load(path)
    return np.concatenate([backends.run_nchw(session, x)[0] for x, _ in test.subset(COMPARED).batches(BATCH)])


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    ratios, versions = result["ratios"], result["versions"]
    title = (
        f"# {result['model']} in every type, dense and at {ratios['macs']:g}x fewer MACs and "
        f"{ratios['parameters']:g}x fewer parameters"
    )
    measured = (
        f"`{result['command']}`, {result['date'][:10]}; ranges of int8 from {result['calibration']}; {result['data']}; "
        f"ONNX Runtime {versions['onnxruntime']}, LiteRT {versions['ai-edge-litert']}, one thread, all files of a "
        "runtime in one interleaved run; times as fast with their 95 % interval. SQNR and agreement are those of the "
        "scores against the float32 file of the same network."
    )
    header = (
        "| network | type | kB | top-1 % | SQNR dB | same class % | median us | as fast as dense float32 | "
        "as fast as dense in this type |"
    )
    lines = [title, "", measured]
    for runtime in RUNTIMES.values():
        lines += ["", f"## {runtime}", "", header, "|---|---|---|---|---|---|---|---|---|"]
        for row in result["rows"]:
            if row["runtime"] != runtime:
                continue
            dtype = row["dtype"] + ("" if row["rebalanced"] else ", factors not rebalanced")
            sqnr, same = ("" if row[key] is None else f"{row[key]:.1f}" for key in ("sqnr_db", "agreement"))
            lines.append(
                f"| {row['network']} | {dtype} | {row['bytes'] / 1e3:.0f} | {row['top1']:.2f} | {sqnr} | {same} | "
                f"{1e6 * row['latency']['median']:.0f} | {_ratio(row['over_dense_float32'])} | "
                f"{_ratio(row['over_dense_same_type']) if row['network'] == 'compressed' else ''} |"
            )
    lines += [
        "",
        "## What rebalancing the factors gains",
        "",
        f"int8 in LiteRT by family at {FAMILY_RATIO:g}x fewer MACs, decomposed by weights alone.",
        "",
        "| family | SQNR dB as they are | rebalanced | same class % as they are | rebalanced |",
        "|---|---|---|---|---|",
    ]
    for row in result["rebalancing"]:
        before, after = row["as_they_are"], row["rebalanced"]
        lines.append(
            f"| {row['family']} | {before['sqnr_db']:.1f} | {after['sqnr_db']:.1f} | {before['agreement']:.1f} | "
            f"{after['agreement']:.1f} |"
        )
    return "\n".join([*lines, ""])


def _ratio(interval: dict[str, float]) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
