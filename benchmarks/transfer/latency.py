"""Latency of the networks that are finished, each beside the dense one, in both runtimes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.networks import trained
from benchmarks.common.record import Record, Row, made
from benchmarks.common.variants import Variant, compare
from edgekron.errors import UserError
from edgekron.graph import Hub

from .rows import folder_of

#: By the ending of its files, what a runtime is called in the record.
NAMES = {"onnx": "onnxruntime", "tflite": "litert"}
PACKAGES = ("onnxruntime", "ai-edge-litert", "numpy")


def measure(model: str, rows: list[Row], runs: Path, seconds: float) -> Record:
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
    found: list[Row] = []
    for (unit, ratio), hubs in groups.items():
        for target, runtime in NAMES.items():
            print(f"{ratio:g}x fewer {unit}", flush=True)
            networks = [Variant.of(Hub.open(file), {"key": json.loads(key)}) for key, file in hubs.items()]
            first = Variant.of(dense, {})
            report = compare([first, *networks], target, seconds=seconds)
            group = {"dense": first.row["latency"], "networks": [one.row for one in networks]}
            group |= {"unit": unit, "ratio": ratio, "runtime": runtime, "warnings": list(report.warnings)}
            found.append(group)
    return made(*PACKAGES) | {
        "model": model,
        "machine": dict(report.environment),
        "threads": 1,
        "seconds": seconds,
        "units": {"latency": "second", "bytes": "byte", "speedup": "dense over compressed latency"},
        "groups": found,
    }


def speedups(result: Record) -> dict[str, dict[str, dict[str, float]]]:
    """By key (as JSON) and runtime: how many times as fast as dense, with its interval."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for group in result.get("groups", []):
        for network in group["networks"]:
            found.setdefault(json.dumps(network["key"]), {})[group["runtime"]] = network["speedup"]
    return found
