"""Does the statistics of ``edgekron check`` hold on this machine? A file against itself, and one 5 % slower against it.

    python -m benchmarks.noise [--runs 50] [--time 60]

The file is a chain of 20 equal convolutions (32 channels, 28 x 28 pixels) in ONNX; the slower one has 21. Each run is
what a check with a limit ``latency_vs_reference`` does in one attempt: blocks of fresh processes until the 95 %
interval of the ratio is within 1 %, at most for the time given. Counted are the runs in which the interval of the file
against itself contains 1.0, and those in which that of the slower file lies above 1.0. The goals: 45 of 50 each. Runs
are recorded one by one in the record ``noise``, so that an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.common.harness import Experiment
from benchmarks.common.record import Place, Record, machine, made
from edgekron.runtimes.check.blocks import MeasuredBlock
from edgekron.runtimes.check.budget import CheckEffort
from edgekron.runtimes.check.estimates import estimate
from edgekron.runtimes.check.sampling import sample
from edgekron.runtimes.devices import open_device
from edgekron.runtimes.ranks import FEWEST

if TYPE_CHECKING:
    from edgekron.runtimes.devices import Device

LAYERS = {"same": 20, "slower": 21}
CHANNELS, PIXELS = 32, 28
RATIO = "latency_vs_reference"


def write_chain(path: Path, layers: int) -> Path:
    """Equal convolutions one after the other; weights keep the size of the activations."""
    random = np.random.default_rng(0)
    shape = (CHANNELS, CHANNELS, 3, 3)
    weights = [(random.normal(size=shape) / np.sqrt(9 * CHANNELS)).astype(np.float32) for _ in range(layers)]
    nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1, 1, 1, 1]) for i in range(layers)]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, CHANNELS, PIXELS, PIXELS])
        for name in ("x0", f"x{layers}")
    ]
    tensors = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def compare(files: Sequence[Path], device: Device, effort: CheckEffort) -> dict[str, Any]:
    """One run: the ratio of the first file's latency over the second's."""
    started, load = time.perf_counter(), os.getloadavg()[0]

    def targets(blocks: Sequence[MeasuredBlock]) -> list[Any]:
        return [(estimate(RATIO, blocks, None), None)]

    blocks = sample(files, device, effort, FEWEST, targets, lambda *_: None)
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {"blocks": len(blocks), "seconds": seconds, "load": load}
    found["log_ratios"] = [block.log_ratio for block in blocks]
    if len(blocks) < FEWEST:
        return {**found, "ratio": None, "interval": None}
    interval = estimate(RATIO, blocks, None)
    return {**found, "ratio": interval.value, "interval": [interval.low, interval.high]}


def summary(name: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the interval of a run of one kind was right, and how long the runs took."""
    intervals = [run["interval"] for run in runs if run["interval"]]
    right = [low > 1.0 if name == "slower" else low <= 1.0 <= high for low, high in intervals]
    halves = [(high - low) / 2 for low, high in intervals]
    seconds = [run["seconds"] for run in runs]
    return {
        "runs": len(runs),
        "right": sum(right),
        "median_ratio": float(np.median([run["ratio"] for run in runs if run["ratio"]])) if intervals else None,
        "median_half_interval": float(np.median(halves)) if halves else None,
        "median_seconds": float(np.median(seconds)),
        "most_seconds": max(seconds),
        "median_blocks": float(np.median([run["blocks"] for run in runs])),
    }


def options(parser: argparse.ArgumentParser) -> None:
    """How often, and how long."""
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--time", type=float, default=60.0, help="seconds after which no block of a run begins")


def measure(arguments: argparse.Namespace) -> Record:
    """Runs what the record lacks, both kinds in turns."""
    place = Place("noise", arguments.output)
    runs: Record = {name: [] for name in LAYERS}
    runs |= place.earlier("runs")
    effort = CheckEffort(seconds=arguments.time)
    with tempfile.TemporaryDirectory(prefix="edgekron-noise-") as folder, closing(open_device("local")) as device:
        files = {name: write_chain(Path(folder) / f"{name}.onnx", layers) for name, layers in LAYERS.items()}
        for index in range(arguments.runs):
            for name, file in files.items():
                if len(runs[name]) > index:
                    continue
                runs[name].append(compare([file, files["same"]], device, effort))
                print(name, json.dumps({**runs[name][-1], "log_ratios": None}), flush=True)
                found = {name: summary(name, done) for name, done in runs.items() if done}
                record = made("onnxruntime", "numpy") | {"machine": machine(), "seconds_allowed": arguments.time}
                place.write(record | {"summary": found, "runs": runs})
    record = place.read()
    print(json.dumps(record["summary"], indent=1))
    return record


EXPERIMENT = Experiment("noise", __doc__, "noise", measure, options)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
