"""Tucker-2, CP and tensor train beside tensorly: output error at equal parameters, time, memory.

    python benchmarks/against_tensorly.py errors --network sixconv [--output benchmarks/results/tensorly-sixconv.json]
    python benchmarks/against_tensorly.py resnet50 [--output benchmarks/results/tensorly-resnet50.json]

``errors``: every convolution with a window of a bundled trained network, at the ranks that halve its parameters, by
tensorly (partial Tucker, CP by alternating least squares, tensor train, as they come), by our closed form on the
weights, and by our fit to calibration data; the error of the layer's outputs on images that neither has seen.
``resnet50``: seconds and peak memory to decompose every layer of ResNet-50 (random weights), closed forms only, each
family and each tool in a process of its own. Needs ``pip install tensorly``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

FAMILIES = ("tucker", "cp", "tt")
#: Ranks that leave this share of a layer's parameters.
SHARE = 0.5
IMAGES = 1024


def ranks_of(structure: Any, parameters: int) -> tuple[int, ...]:
    """The largest ranks, in equal proportion to the full ones, with at most ``parameters``."""
    best = (1,) * len(structure.max_ranks)
    low, high = 0.0, 1.0
    for _ in range(30):
        share = (low + high) / 2
        ranks = tuple(max(1, int(share * m)) for m in structure.max_ranks)
        if structure.network(*ranks).parameters <= parameters:
            best, low = ranks, share
        else:
            high = share
    return best


def by_tensorly(family: str, kernel: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    """The kernel [F, C, kh, kw] that tensorly's factors of these ranks stand for."""
    import tensorly
    from tensorly import decomposition

    if kernel.shape[2:] == (1, 1):
        u, s, v = np.linalg.svd(kernel[:, :, 0, 0], full_matrices=False)
        return ((u[:, : ranks[0]] * s[: ranks[0]]) @ v[: ranks[0]])[:, :, None, None]
    if family == "tucker":
        (core, factors), _ = decomposition.partial_tucker(kernel, rank=list(ranks), modes=[0, 1])
        return tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    if family == "cp":
        return tensorly.cp_to_tensor(decomposition.parafac(kernel, rank=ranks[0], init="svd", random_state=0))
    moved = kernel.transpose(1, 2, 3, 0)
    cores = decomposition.tensor_train(moved, rank=[1, *ranks, 1])
    return tensorly.tt_to_tensor(cores).transpose(3, 0, 1, 2)


def errors(network: str) -> dict[str, Any]:
    """Every layer and family of ``network``."""
    from edgekron import models
    from edgekron.compression.refit import iterations
    from edgekron.fitting.calibration import Walk, sample
    from edgekron.fitting.fit import Fitter
    from edgekron.graph import load
    from edgekron.models import datasets
    from edgekron.structures import FAMILIES as OURS

    data = [x for x, _ in datasets.load("fashion-mnist:calibration").subset(IMAGES).batches(32)]
    hub = load(models.load(network), input_shape=(1, 28, 28))
    rows: dict[str, Any] = {}
    with Walk(hub, data) as walk:
        for index, layer in enumerate(hub.layers()):
            if layer.frozen_reason is not None or layer.kernel_shape[2:] == (1, 1) or layer.kernel_shape[1] == 1:
                continue
            walk.advance(layer)
            kernel = torch.from_numpy(np.array(layer.kernel))
            taken = sample(layer, kernel, walk, walk, index)

            def judged(candidate: torch.Tensor, taken: Any = taken) -> float:
                return taken.error(candidate, taken.moments.bias(candidate))

            for family in FAMILIES:
                (structure,) = OURS[family].templates(layer.kernel_shape, layer.groups)
                ranks = ranks_of(structure, int(SHARE * kernel.numel()))
                start = time.perf_counter()
                theirs = torch.from_numpy(np.ascontiguousarray(by_tensorly(family, kernel.numpy(), ranks)))
                middle = time.perf_counter()
                blind = Fitter(structure, kernel, None).closed_form(*ranks).kernel()
                closed = time.perf_counter()
                fitter = Fitter(structure, kernel, taken.moments)
                fitted = fitter.refined(fitter.closed_form(*ranks), iterations(structure))
                rows[f"{layer.name} {family}"] = {
                    "ranks": list(ranks),
                    "parameters": structure.network(*ranks).parameters,
                    "error_tensorly": judged(theirs),
                    "error_weights": judged(blind),
                    "error_data": judged(fitted.kernel()),
                    "kernel_error_tensorly": float((theirs - kernel).square().sum() / kernel.square().sum()),
                    "kernel_error_weights": float((blind - kernel).square().sum() / kernel.square().sum()),
                    "seconds_tensorly": middle - start,
                    "seconds_weights": closed - middle,
                    "seconds_data": time.perf_counter() - closed,
                }
                print(layer.name, family, json.dumps(rows[f"{layer.name} {family}"]), flush=True)
    worse = [name for name, row in rows.items() if row["error_data"] >= row["error_tensorly"]]
    return {"network": network, "rows": rows, "layers_where_data_do_not_win": worse}


def _decompose_all(family: str, tool: str, queue: Any) -> None:
    """Every layer of ResNet-50 with random weights by one tool; puts seconds and the growth of the peak."""
    from edgekron import models
    from edgekron.structures import FAMILIES as OURS

    torch.manual_seed(0)
    kernels = [
        p.detach().clone()[..., None, None] if p.ndim == 2 else p.detach().clone()
        for p in models.build("resnet50").parameters()
        if p.ndim in (2, 4)
    ]
    if tool == "tensorly":
        import tensorly.decomposition  # noqa: F401  what importing takes is not what decomposing takes
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    seconds = error = 0.0
    for kernel in kernels:
        shape = tuple(kernel.shape)
        structure = next(iter(OURS[family].templates(shape, 1)))
        ranks = ranks_of(structure, int(SHARE * kernel.numel()))
        start = time.perf_counter()
        if tool == "tensorly":
            made = torch.from_numpy(np.ascontiguousarray(by_tensorly(family, kernel.numpy(), ranks)))
            seconds += time.perf_counter() - start
        else:
            factors = structure.decompose(kernel).truncated(*ranks)
            seconds += time.perf_counter() - start
            made = structure.network(*ranks).expand(factors)
        error += float((made - kernel).square().sum() / kernel.square().sum())
    queue.put(
        {
            "seconds": seconds,
            "mean_kernel_error": error / len(kernels),
            "peak_bytes": _status("VmHWM"),
            "growth_bytes": _status("VmHWM") - before,
            "layers": len(kernels),
        }
    )


def resnet50(families: list[str]) -> dict[str, Any]:
    """Seconds and memory of both tools, one after the other."""
    context = multiprocessing.get_context("spawn")
    rows: dict[str, Any] = {}
    for family in families:
        for tool in ("edgekron", "tensorly"):
            queue = context.Queue()
            process = context.Process(target=_decompose_all, args=(family, tool, queue))
            process.start()
            rows[f"{family} {tool}"] = queue.get()
            process.join()
            print(family, tool, json.dumps(rows[f"{family} {tool}"]), flush=True)
    return {"network": "resnet50, random weights", "share_of_parameters": SHARE, "rows": rows}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("errors", "resnet50"))
    parser.add_argument("--network", default="sixconv")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    measured = errors(arguments.network) if arguments.what == "errors" else resnet50(arguments.families)
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {name: version(name) for name in ("edgekron", "torch", "numpy", "tensorly")},
        "threads": torch.get_num_threads(),
        **measured,
    }
    name = arguments.network if arguments.what == "errors" else "resnet50"
    output = arguments.output or Path(f"benchmarks/results/tensorly-{name}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
