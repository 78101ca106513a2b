"""Latency of the networks that ``transfer.py`` has finished, each beside the dense one, in both runtimes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from publishing import trained
from transfer_rows import folder_of

from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Hub
from edgekron.runtimes import Measuring, bench

#: By runtime: the ending of its files, its name, and what writes them.
RUNTIMES: dict[str, tuple[str, str, Callable[[Hub, Path], object]]] = {
    "onnxruntime": ("onnx", "ONNX Runtime", export_onnx),
    "litert": ("tflite", "LiteRT", export_tflite),
}
PACKAGES = ("edgekron", "onnxruntime", "ai-edge-litert", "numpy")


def measure(model: str, rows: list[dict[str, Any]], runs: Path, seconds: float) -> dict[str, Any]:
    """All networks of a ratio are timed in turns with the dense one, ``seconds`` each, on one thread.

    Raises ``UserError`` where no network is finished.
    """
    _, dense = trained(model)
    groups: dict[tuple[str, float], dict[str, Path]] = {}
    for row in rows:
        hub = folder_of(runs, row["key"]) / "transferred.onnx"
        if row["step"] == "transferred" and hub.exists():
            groups.setdefault((row["key"]["unit"], row["key"]["ratio"]), {})[json.dumps(row["key"])] = hub
        elif row["step"] == "transferred":
            print(f"{hub} is not there: not timed", flush=True)
    if not groups:
        raise UserError(f"no trained network of {model} is in {runs}; run this without --time first.")
    found: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    for (unit, ratio), hubs in groups.items():
        for runtime in RUNTIMES:
            print(f"{ratio:g}x fewer {unit} in {RUNTIMES[runtime][1]}: {len(hubs)} files", flush=True)
            machine, group = _group(dense, hubs, runtime, seconds)
            found.append({"unit": unit, "ratio": ratio, "runtime": runtime, **group})
    return {
        "model": model,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "threads": 1,
        "seconds": seconds,
        "units": {"latency": "second", "bytes": "byte", "speedup": "dense over compressed latency"},
        "groups": found,
    }


def _group(dense: Hub, hubs: dict[str, Path], runtime: str, seconds: float) -> tuple[dict[str, Any], ...]:
    """The dense network and those of one ratio, in one runtime: the machine, and what was measured."""
    ending, _, export = RUNTIMES[runtime]
    with tempfile.TemporaryDirectory(prefix="edgekron-transfer-") as folder:
        files = [Path(folder) / f"{number}.{ending}" for number in range(len(hubs) + 1)]
        for hub, file in zip([dense, *map(Hub.open, hubs.values())], files, strict=True):
            export(hub, file)
        report = bench(files, Measuring(threads=1, seconds=seconds))
        first, *others = report.files
        timed = [
            {
                "key": json.loads(key),
                "bytes": file.stat().st_size,
                "latency": asdict(result.latency),
                "speedup": asdict(s),
            }
            for key, file, result, s in zip(hubs, files[1:], others, report.speedups, strict=True)
        ]
    measured = {"dense": asdict(first.latency), "networks": timed, "warnings": list(report.warnings)}
    return dict(report.environment), measured


def speedups(result: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """By key (as JSON) and runtime: how many times as fast as dense, with its interval."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for group in result.get("groups", []):
        for network in group["networks"]:
            found.setdefault(json.dumps(network["key"]), {})[group["runtime"]] = network["speedup"]
    return found
