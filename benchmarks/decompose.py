"""Time and memory of decomposing: one layer of 512 channels, and whole networks.

    python -m benchmarks.decompose

A layer of 512 x 512 x 3 x 3 is decomposed (closed form on the weights), fitted (closed form on moments) and refitted
(closed form and L-BFGS). Networks are compressed on random images in a process of their own, and their peak memory is
compared with the sizes of the network and of the largest layer's moments. Seconds are those of this machine, whose load
at the time is in the record, ``decompose``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from typing import Any

from benchmarks.common.harness import Experiment
from benchmarks.common.memory import forget_peak, resident
from benchmarks.common.record import Record, machine, made

SHAPES = {
    "spatial SVD": ((512, 1), (1, 512), (1, 3), (3, 1), 128),
    "channel SVD": ((512, 1), (1, 512), (1, 3), (1, 3), 128),
    "Kronecker, F2 = 4, C1 = 4": ((128, 4), (4, 128), (3, 1), (3, 1), 16),
}
NETWORKS = ("sixconv", "resnet20", "resnet18-cifar")


def layer_times() -> dict[str, dict[str, float]]:
    """Seconds for each shape of the layer."""
    import torch

    from edgekron.compression.refit import iterations
    from edgekron.fitting.fit import Fitter
    from edgekron.fitting.moments import MomentSums
    from edgekron.structures import KroneckerShape

    generator = torch.Generator().manual_seed(0)
    d = 512 * 9
    kernel = torch.randn(512, 512, 3, 3, generator=generator) / math.sqrt(d)
    mixing = torch.randn(d, d, generator=generator) * torch.logspace(0, -2, d)[:, None] / 10
    sums = MomentSums(1, d, 512)
    for _ in range(4):
        x = torch.relu(torch.randn(3000, d, generator=generator) @ mixing)
        sums.add(x[:, None], x @ kernel.reshape(512, d).T)
    moments = sums.finish()
    rows = {}
    for name, (f, c, h, w, rank) in SHAPES.items():
        shape = KroneckerShape(f, c, h, w)
        start = time.perf_counter()
        weights = Fitter(shape, kernel, None).closed_form(rank)
        decomposed = time.perf_counter()
        fitter = Fitter(shape, kernel, moments)
        closed = fitter.closed_form(rank)
        fitted = time.perf_counter()
        refined = fitter.refined(closed, iterations(shape))
        rows[name] = {
            "rank": rank,
            "decompose_s": decomposed - start,
            "closed_form_on_data_s": fitted - decomposed,
            "refit_s": time.perf_counter() - decomposed,
            "output_error_weights_only": moments.error(weights.kernel()),
            "output_error_closed_form": closed.error,
            "output_error_refit": refined.error,
        }
        print(name, json.dumps(rows[name]))
    return rows


def network_memory(name: str, queue: Any) -> None:
    """Compresses ``name`` on random images; puts bytes of the network, the largest moments and the peak."""
    import numpy as np
    from torch import nn

    from benchmarks.common.networks import ratios
    from edgekron import models
    from edgekron.compression.compressor import compress
    from edgekron.graph import load
    from edgekron.memory import give_back_large_blocks
    from edgekron.models import NETWORKS as ENTRIES

    give_back_large_blocks()
    # What libraries take once, for their code, kernels and threads, is not what compressing takes.
    toy = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 10))
    noise = np.random.default_rng(1).standard_normal((64, 8, 6, 6)).astype(np.float32)
    compress(load(toy, input_shape=(8, 6, 6)), model="toy", ratios={"macs": 2.0}, data=[noise])

    shape = ENTRIES[name].input_shape
    module = models.load(name)
    network = 4 * sum(p.numel() for p in module.parameters())
    before = resident("VmRSS")
    hub = load(module, input_shape=shape)
    del module
    loaded = resident("VmRSS")
    forget_peak()
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((16, *shape)).astype(np.float32) for _ in range(16)]
    start = time.perf_counter()
    result = compress(hub, model=name, ratios={"macs": 2.0}, data=data)
    seconds = time.perf_counter() - start
    kernels = [layer.kernel_shape for layer in hub.layers() if layer.frozen_reason is None]
    moments = max(8 * math.prod(k[1:]) ** 2 for k in kernels)
    peak = resident("VmHWM")
    queue.put(
        {
            "network_bytes": network,
            "largest_moments_bytes": moments,
            "resident_before_loading": before,
            "resident_after_loading": loaded,
            "peak_while_compressing": peak,
            "growth_while_compressing": peak - loaded,
            "budget_4x_network_and_moments": 4 * network + moments,
            "seconds": seconds,
            "mac_ratio": ratios(hub, result.hub)["macs"],
        }
    )


def measure(_: argparse.Namespace) -> Record:
    """The layer, and every network in a process of its own."""
    import torch

    record: Record = made("torch", "onnxruntime", "numpy") | {
        "machine": machine(load=True),
        "threads": torch.get_num_threads(),
        "layer_512x512x3x3": layer_times(),
        "networks": {},
    }
    context = multiprocessing.get_context("spawn")
    for name in NETWORKS:
        queue = context.Queue()
        process = context.Process(target=network_memory, args=(name, queue))
        process.start()
        record["networks"][name] = queue.get()
        process.join()
        print(name, json.dumps(record["networks"][name]))
    return record


EXPERIMENT = Experiment("decompose", __doc__, "decompose", measure)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
