"""Pruning without training: top-1 against MACs by every criterion, with and without repair, and measured latency.

    python benchmarks/pruning.py resnet56
    python benchmarks/pruning.py resnet20 --ratios 1.5 --images 1000 --calibration 128

At each ratio of MACs the network is pruned by every criterion, left as it is and repaired by least squares, and by
Torch-Pruning's own pruner as it comes (magnitude importance, global ranking, pruned until it has no more MACs than
asked for; ``pip install torch-pruning``). The files of one ratio are timed in ONNX Runtime against the dense network,
all of them in one interleaved run; with ``--epochs``, the networks of this ratio are also trained, repaired ones and
Torch-Pruning's, all in the same way, and the same command goes on where it was killed. It writes
``benchmarks/results/pruning-MODEL.json``, ``docs/pruning-MODEL.svg`` and ``docs/pruning-MODEL.md``.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from publishing import CALIBRATION, TEST, digest_of, publish, trained
from torch import nn
from transferring import file_top1, retrained

from edgekron import graph
from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.pruning import CRITERIA, Settings, Structure, prune
from edgekron.runtimes import bench, top1

COLOURS = dict(zip(CRITERIA, ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#e69f00", "#999999"), strict=True))
THEIRS, THEIR_COLOUR = "torch-pruning", "#cc79a7"
RATIOS = (1.25, 1.5, 1.75, 1.94, 2.25, 2.75)
PACKAGES = ("edgekron", "torch", "onnx", "onnxruntime", "numpy", "torch-pruning")
#: Steps that Torch-Pruning's pruner takes from nothing to everything; it stops at the first that meets the ratio.
STEPS = 200


def main() -> int:
    """Measures and writes; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as resnet56")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, metavar="R", help="R times fewer MACs")
    parser.add_argument("--timed", type=float, metavar="R", help="the ratio that is timed (default: nearest to 2)")
    parser.add_argument("--criteria", nargs="+", default=CRITERIA, choices=CRITERIA, help="default: all")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds a file (default: 2)")
    parser.add_argument("--any-width", action="store_true", help="do not raise channels to numbers that run well")
    parser.add_argument("--epochs", type=int, default=0, help="of training at the ratio that is timed (default: none)")
    parser.add_argument("--train", type=int, default=60_000, help="training images (default: all 60,000)")
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate (default: 0.02)")
    parser.add_argument("--runs", type=Path, default=Path("runs/pruning"), help="where unfinished training is kept")
    arguments = parser.parse_args()
    return publish(f"pruning-{arguments.model}", lambda: measure(arguments), table, draw)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The dense network and every criterion at every ratio; one ratio is timed."""
    name = arguments.model
    module, dense = trained(name)
    calibration = [x for x, _ in datasets.load(CALIBRATION).subset(arguments.calibration).batches(32)]
    test = datasets.load(TEST).subset(arguments.images)
    timed = arguments.timed or min(arguments.ratios, key=lambda ratio: abs(ratio - 2))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgekron-pruning-") as folder:
        files = [Path(folder) / "dense.onnx"]
        kept: list[dict[str, Any]] = []
        first: dict[str, Any] = {"criterion": "dense", "repair": False, "asked": 1.0}
        for about, hub in chain([(first, dense)], pruned(arguments, module, dense, calibration)):
            file = files[0] if hub is dense else Path(folder) / f"{len(rows)}.onnx"
            export_onnx(hub, file)
            row = about | costs(hub) | {"bytes": file.stat().st_size}
            row["top1"] = 100 * top1(file, test.batches(100), threads=1).top1
            last = row["repair"] or row["criterion"] == THEIRS
            if arguments.epochs and last and row["asked"] == timed:
                row["top1_trained"] = trained_top1(arguments, hub, row)
            print(f"{row['criterion']} repair={row['repair']} {row['macs']:,} MACs: {row['top1']:.2f} %", flush=True)
            rows.append(row)
            if hub is not dense and row["asked"] == timed:
                files.append(file)
            if hub is dense or row["asked"] == timed:
                kept.append(row)
        report = bench(files, threads=1, seconds=arguments.seconds)
        speedups = [None, *(asdict(interval) for interval in report.speedups)]
        for row, measured, speedup in zip(kept, report.files, speedups, strict=True):
            row["latency"], row["speedup"] = asdict(measured.latency), speedup
    return {
        "model": name,
        "timed": timed,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": dict(report.environment),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "calibration": f"{sum(map(len, calibration))} images of {CALIBRATION}",
        "data": f"{len(test)} images of {TEST}",
        "any_width": arguments.any_width,
        "training": {name: getattr(arguments, name) for name in ("epochs", "train", "rate")},
        "threads": 1,
        "warnings": list(report.warnings),
        "units": {"latency": "second", "top1": "percent", "seconds": "seconds of pruning, repair included"},
        "rows": rows,
    }


def pruned(
    arguments: argparse.Namespace, module: nn.Module, dense: Hub, calibration: list[np.ndarray]
) -> Iterator[tuple[dict[str, Any], Hub]]:
    """Every pruned network with what is known of it."""
    for ratio in arguments.ratios:
        for criterion in arguments.criteria:
            for repair in (False, True):
                settings = Settings(any_width=arguments.any_width, repair=repair)
                start = time.perf_counter()
                made = prune(dense, criterion, settings, ratios={"macs": ratio}, data=calibration)
                seconds = time.perf_counter() - start
                yield {"criterion": criterion, "repair": repair, "asked": ratio, "seconds": seconds}, made.hub
        start = time.perf_counter()
        hub = theirs(module, dense, ratio)
        yield {"criterion": THEIRS, "repair": False, "asked": ratio, "seconds": time.perf_counter() - start}, hub


def trained_top1(arguments: argparse.Namespace, hub: Hub, row: dict[str, Any]) -> float:
    """Top-1 of a pruned network after training with labels, in the file; what is finished is not done again."""
    key = {name: row[name] for name in ("criterion", "repair", "asked", "macs", "top1")}
    key |= {name: getattr(arguments, name) for name in ("model", "epochs", "train", "rate", "images")}
    folder = arguments.runs / f"{arguments.model}-{row['criterion']}-{row['asked']:g}-{digest_of(key)}"
    record = folder / "trained.json"
    if not record.exists():
        settings = {"images": arguments.train, "epochs": arguments.epochs, "rate": arguments.rate}
        made, _ = retrained(hub, **settings, folder=folder / "training", identity=key)
        write_file(record, json.dumps({"top1": file_top1(made, arguments.images)[0]}), force=True)
    found = float(json.loads(record.read_text())["top1"])
    print(f"{row['criterion']} trained for {arguments.epochs} epochs: {found:.2f} %", flush=True)
    return found


def theirs(module: nn.Module, dense: Hub, ratio: float) -> Hub:
    """What Torch-Pruning's own pruner makes of the module, at the first step with as few MACs as asked for.

    Layers that our graph finds tied to something that cannot be cut are left out: its tracer does not follow the
    shortcuts that pad channels.
    """
    import torch_pruning as tp

    shape = (1, *dense.input_shape)
    frozen = {layer for group in Structure(dense).groups if group.reason is not None for layer in group.layers}
    subject = copy.deepcopy(module).eval()
    pruner = tp.pruner.MagnitudePruner(
        subject,
        torch.zeros(shape),
        importance=tp.importance.MagnitudeImportance(),
        global_pruning=True,
        pruning_ratio=1.0,
        max_pruning_ratio=0.9,
        iterative_steps=STEPS,
        ignored_layers=[subject.get_submodule(name) for name in frozen],
    )
    wanted = costs(dense)["macs"] / ratio
    for _ in range(STEPS):
        pruner.step()
        # Its own count is of a forward pass, ours of the file's layers.
        hub = graph.load(subject, input_shape=dense.input_shape) if _near(subject, shape, wanted) else None
        if hub is not None and costs(hub)["macs"] <= wanted:
            return hub
    raise UserError(f"Torch-Pruning does not reach {ratio:g} times fewer MACs; ask for less.")


def _near(module: nn.Module, shape: tuple[int, ...], wanted: float) -> bool:
    """Whether a module's MACs are no more than wanted, without writing it as a graph."""
    from edgekron.cost import module_cost

    return module_cost(copy.deepcopy(module), shape[1:]).macs <= wanted


def costs(hub: Hub) -> dict[str, int]:
    """MACs and weights of a hub's layers."""
    layers = hub.layers()
    return {"macs": sum(x.dense_macs for x in layers), "parameters": sum(x.dense_parameters for x in layers)}


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    dense = result["rows"][0]
    measured = (
        f"`{result['command']}`, {result['date'][:10]}; {result['calibration']}; {result['data']}; ONNX Runtime "
        f"{result['versions']['onnxruntime']}, one thread; latency against the dense file with its 95 % interval, at "
        f"{result['timed']:g} times fewer MACs. Torch-Pruning {result['versions']['torch-pruning']} as it comes "
        "(magnitude, global)."
    )
    if result["training"]["epochs"]:
        how = result["training"]
        measured += f" Trained: for {how['epochs']} epochs, with the labels of {how['train']:,} training images."
    lines = [
        f"# Pruning {result['model']} without training",
        "",
        measured,
        "",
        "| criterion | repair | MACs | parameters | top-1 % | lost | trained | lost | as fast |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        speed, after = row.get("speedup"), row.get("top1_trained")
        cells = [
            row["criterion"],
            "least squares" if row["repair"] else "",
            f"{row['macs'] / 1e6:.1f} M (-{100 - 100 * row['macs'] / dense['macs']:.1f} %)",
            f"{row['parameters'] / 1e3:.0f} k (-{100 - 100 * row['parameters'] / dense['parameters']:.1f} %)",
            f"{row['top1']:.2f}",
            f"{dense['top1'] - row['top1']:.2f}",
            "" if after is None else f"{after:.2f}",
            "" if after is None else f"{dense['top1'] - after:.2f}",
            "" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Top-1 against MACs: repaired as solid lines, as left by the removal as dashed ones."""
    mpl.rcParams["svg.hashsalt"] = "edgekron"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    dense = result["rows"][0]
    for criterion in dict.fromkeys(row["criterion"] for row in result["rows"][1:]):
        for repair in (True, False):
            rows = [row for row in result["rows"] if row["criterion"] == criterion and row["repair"] == repair]
            if not rows:
                continue
            points = sorted((row["macs"] / 1e6, row["top1"]) for row in (dense, *rows))
            axes.plot(
                *zip(*points, strict=True),
                color=COLOURS.get(criterion, THEIR_COLOUR),
                linestyle="-" if repair else "--",
                marker="o",
                markersize=3,
                label=f"{criterion}{', repaired' if repair else ''}",
            )
    axes.set_xlabel("million MACs for one image")
    axes.set_ylabel("top-1 %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
