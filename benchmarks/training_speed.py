"""How fast compressed networks train: against what their MACs predict, and with a teacher against without.

    python benchmarks/training_speed.py resnet32 [--ratio 4] [--method kronecker]

Steps of a batch are timed in turns, dense, compressed, compressed against a teacher whose answers are kept, and against
one that looks every time, so that all see the same machine. Prints medians in milliseconds, how much faster a
compressed step is than a dense one over how many times fewer MACs it has, and what a teacher costs. Writes
``benchmarks/results/training-speed-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from edgekron import graph, models
from edgekron.compression.compressor import compress
from edgekron.files import write_file
from edgekron.models import datasets
from edgekron.training import GraphModule, KnowledgeTransfer, ResponseCache
from edgekron.training.objective import Objective, cross_entropy
from edgekron.training.precision import autocast, has_bfloat16

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled network, such as resnet32")
    parser.add_argument("--ratio", type=float, default=4.0, metavar="R", help="R times fewer MACs (default: 4)")
    parser.add_argument("--method", default="kronecker")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each (default: 15)")
    arguments = parser.parse_args()
    hub = graph.load(models.load(arguments.model), input_shape=models.NETWORKS[arguments.model].input_shape)
    made = compress(hub, model=arguments.model, ratios={"macs": arguments.ratio}, method=arguments.method)
    data = datasets.load("fashion-mnist:calibration").subset(arguments.batch)
    x, y = torch.from_numpy(data.normalise(data.images)), torch.from_numpy(data.labels)
    x = x.contiguous(memory_format=torch.channels_last)
    runs: dict[str, tuple[GraphModule, Objective]] = {
        "dense": (GraphModule(hub, normalise=True), cross_entropy()),
        "compressed": (GraphModule(made.hub, normalise=True), cross_entropy()),
    }
    for name, cache in (("teacher kept", ResponseCache(len(x), 1)), ("teacher asked", None)):
        student = GraphModule(made.hub, normalise=True)
        runs[name] = student, KnowledgeTransfer(student, GraphModule(hub), x, cache=cache)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds + 3):
        for name, (module, objective) in runs.items():
            seconds = _step(module.train(), objective, x, y)
            # The first steps choose algorithms and fill the cache.
            if number >= 3:
                times[name].append(1e3 * seconds)
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = made.report["totals"]["macs"]["ratio"]
    speedup = medians["dense"] / medians["compressed"]
    result = {
        "model": arguments.model,
        "method": arguments.method,
        "batch": arguments.batch,
        "mac_ratio": ratio,
        "milliseconds": medians,
        "speedup": speedup,
        "speedup_over_mac_ratio": speedup / ratio,
        "teacher_kept_over_plain": medians["teacher kept"] / medians["compressed"],
        "teacher_asked_over_plain": medians["teacher asked"] / medians["compressed"],
        "bfloat16": has_bfloat16(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "versions": {package: metadata.version(package) for package in ("edgekron", "torch")},
    }
    print(json.dumps(result, indent=1))
    path = ROOT / "benchmarks" / "results" / f"training-speed-{arguments.model}.json"
    write_file(path, json.dumps(result, indent=1) + "\n", force=True)
    return 0


def _step(module: GraphModule, objective: Objective, x: Tensor, y: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    with autocast(x.device, "auto"):
        output = module(x)
    loss = objective(x, output, y, torch.arange(len(x)), 0)
    module.zero_grad(set_to_none=True)
    loss.backward()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
