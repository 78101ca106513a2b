"""How fast compressed networks train: against what their MACs predict, and with a teacher against without.

    python -m benchmarks.training_speed resnet32 [--ratio 4] [--method kronecker]

Steps of a batch are timed in turns, dense, compressed, compressed against a teacher whose answers are kept, and against
one that looks every time, so that all see the same machine. Prints medians in milliseconds, the speedup of a compressed
step over its ratio of MACs, and the cost of a teacher. The record is ``training-speed-MODEL``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch
from torch import Tensor

from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import CALIBRATION, hub_of, ratios
from benchmarks.common.record import Record, machine, made
from edgekron import models
from edgekron.compression.compressor import compress
from edgekron.models import datasets
from edgekron.training import GraphModule, KnowledgeTransfer, ResponseCache
from edgekron.training.objective import Objective, cross_entropy
from edgekron.training.precision import autocast, has_bfloat16


def options(parser: argparse.ArgumentParser) -> None:
    """Which network, compressed how, and how it is timed."""
    add_options(parser, "ratio", ratio=4.0)
    parser.add_argument("--method", default="kronecker")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each (default: 15)")


def measure(arguments: argparse.Namespace) -> Record:
    """Milliseconds of a step of each kind, and how they compare."""
    hub = hub_of(arguments.model, models.load(arguments.model))
    compressed = compress(hub, model=arguments.model, ratios={"macs": arguments.ratio}, method=arguments.method)
    data = datasets.load(CALIBRATION).subset(arguments.batch)
    x, y = torch.from_numpy(data.normalise(data.images)), torch.from_numpy(data.labels)
    x = x.contiguous(memory_format=torch.channels_last)
    runs: dict[str, tuple[GraphModule, Objective]] = {
        "dense": (GraphModule(hub, normalise=True), cross_entropy()),
        "compressed": (GraphModule(compressed.hub, normalise=True), cross_entropy()),
    }
    for name, cache in (("teacher kept", ResponseCache(len(x), 1)), ("teacher asked", None)):
        student = GraphModule(compressed.hub, normalise=True)
        runs[name] = student, KnowledgeTransfer(student, GraphModule(hub), x, cache=cache)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds + 3):
        for name, (module, objective) in runs.items():
            seconds = _step(module.train(), objective, x, y)
            # The first steps choose algorithms and fill the cache.
            if number >= 3:
                times[name].append(1e3 * seconds)
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = ratios(hub, compressed.hub)["macs"]
    speedup = medians["dense"] / medians["compressed"]
    result = made("torch") | {
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
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    return result


def _step(module: GraphModule, objective: Objective, x: Tensor, y: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    with autocast(x.device, "auto"):
        output = module(x)
    loss = objective(x, output, y, torch.arange(len(x)), 0)
    module.zero_grad(set_to_none=True)
    loss.backward()
    return time.perf_counter() - start


EXPERIMENT = Experiment("training_speed", __doc__, "training-speed-{model}", measure, options)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
