"""Tucker-2, CP and tensor train beside tensorly: output error at equal parameters, time, memory.

    python -m benchmarks.against_tensorly sixconv
    python -m benchmarks.against_tensorly resnet50

Of a bundled trained network, every convolution with a window is decomposed at the ranks that halve its parameters: by
tensorly (partial Tucker, CP by alternating least squares, tensor train, as they come), by our closed form on the
weights, and by our fit to calibration data; what is compared is the error of the layer's outputs on images that none
has seen. Of ResNet-50 (random weights), every layer is decomposed by closed forms alone, each family and each tool in
a process of its own, and seconds and peak memory are compared. Needs ``pip install tensorly``. The record is
``tensorly-NETWORK``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.common.harness import Experiment
from benchmarks.common.memory import forget_peak, resident
from benchmarks.common.record import Record, machine, made

if TYPE_CHECKING:
    from edgekron.fitting.calibration import Sample
    from edgekron.graph import Layer
    from edgekron.structures import Structure

FAMILIES = ("tucker", "cp", "tt")
#: Ranks that leave this share of a layer's parameters.
SHARE = 0.5
IMAGES = 1024


def ranks_of(structure: Structure, parameters: int) -> tuple[int, ...]:
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


def errors(network: str, families: list[str]) -> Record:
    """Every layer of ``network`` by every family."""
    from benchmarks.common.networks import calibration, trained
    from edgekron.fitting.calibration import Walk, sample

    _, hub = trained(network)
    rows: dict[str, Any] = {}
    with Walk(hub, calibration(IMAGES)) as walk:
        for index, layer in enumerate(hub.layers()):
            if layer.frozen_reason is not None or layer.kernel_shape[2:] == (1, 1) or layer.kernel_shape[1] == 1:
                continue
            walk.advance(layer)
            kernel = torch.from_numpy(np.array(layer.kernel))
            taken = sample(layer, kernel, walk, walk, index)
            for family in families:
                rows[f"{layer.name} {family}"] = row = beside(family, layer, kernel, taken)
                print(layer.name, family, json.dumps(row), flush=True)
    worse = [name for name, row in rows.items() if row["error_data"] >= row["error_tensorly"]]
    return {"network": network, "rows": rows, "layers_where_data_do_not_win": worse}


def beside(family: str, layer: Layer, kernel: torch.Tensor, taken: Sample) -> dict[str, Any]:
    """One layer by tensorly, by our closed form, and by our fit to the layer's inputs, all at the same ranks."""
    from edgekron.compression.refit import iterations
    from edgekron.fitting.fit import Fitter
    from edgekron.structures import FAMILIES as OURS

    (structure,) = OURS[family].templates(layer.kernel_shape, layer.groups)
    ranks = ranks_of(structure, int(SHARE * kernel.numel()))
    start = time.perf_counter()
    theirs = torch.from_numpy(np.ascontiguousarray(by_tensorly(family, kernel.numpy(), ranks)))
    middle = time.perf_counter()
    blind = Fitter(structure, kernel, None).closed_form(*ranks).kernel()
    closed = time.perf_counter()
    fitter = Fitter(structure, kernel, taken.moments)
    fitted = fitter.refined(fitter.closed_form(*ranks), iterations(structure)).kernel()
    end = time.perf_counter()
    made_of = {"tensorly": theirs, "weights": blind, "data": fitted}
    return {
        "ranks": list(ranks),
        "parameters": structure.network(*ranks).parameters,
        **{f"error_{name}": taken.error(one, taken.moments.bias(one)) for name, one in made_of.items()},
        "kernel_error_tensorly": float((theirs - kernel).square().sum() / kernel.square().sum()),
        "kernel_error_weights": float((blind - kernel).square().sum() / kernel.square().sum()),
        "seconds_tensorly": middle - start,
        "seconds_weights": closed - middle,
        "seconds_data": end - closed,
    }


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
        # What importing takes is not what decomposing takes.
        importlib.import_module("tensorly.decomposition")
    before = resident("VmRSS")
    forget_peak()
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
            "peak_bytes": resident("VmHWM"),
            "growth_bytes": resident("VmHWM") - before,
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


def options(parser: argparse.ArgumentParser) -> None:
    """Which network."""
    parser.add_argument("network", help="a bundled trained network, such as sixconv, or resnet50")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, help="default: all")


def measure(arguments: argparse.Namespace) -> Record:
    """Errors of a trained network, or time and memory of ResNet-50."""
    how = {"machine": machine(load=True), "threads": torch.get_num_threads()}
    compared = (
        resnet50(arguments.families)
        if arguments.network == "resnet50"
        else errors(arguments.network, arguments.families)
    )
    return made("torch", "numpy", "tensorly") | how | compared


EXPERIMENT = Experiment("against_tensorly", __doc__, "tensorly-{network}", measure, options)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
