"""Pruning: top-1 against MACs by every criterion, without training and with, repaired or not, and measured latency.

    python benchmarks/pruning.py resnet56
    python benchmarks/pruning.py resnet20 --ratios 1.5 --images 1000 --calibration 128

At each ratio of MACs the network is pruned by every criterion, left as it is and repaired by least squares, and by
Torch-Pruning's own pruner as it comes (magnitude importance, global ranking, pruned until it has no more MACs than
asked for; ``pip install torch-pruning``). The files of one ratio are timed in ONNX Runtime and in LiteRT against the
dense network, all of them in one interleaved run; with ``--epochs``, the networks of this ratio are also trained,
repaired ones and Torch-Pruning's, all in the same way. The same command goes on where it was killed, within an epoch
too. It writes
``benchmarks/results/pruning-MODEL.json``, ``docs/pruning-MODEL.svg`` and ``docs/pruning-MODEL.md``.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
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
from edgekron.exporters.tflite import export_tflite
from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.pruning import CRITERIA, ChannelStructure, PruningSettings, prune
from edgekron.runtimes import Report, bench

COLOURS = dict(zip(CRITERIA, ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#e69f00", "#999999"), strict=True))
THEIRS, THEIR_COLOUR = "torch-pruning", "#cc79a7"
RATIOS = (1.25, 1.5, 1.75, 1.94, 2.25, 2.75)
PACKAGES = ("edgekron", "torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy", "torch-pruning")
#: How a file that a runtime takes is written.
EXPORTS: dict[str, Callable[[Hub, Path], Any]] = {"onnx": export_onnx, "tflite": export_tflite}
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
    parser.add_argument("--runs", type=Path, default=Path("runs/pruning"), help="where finished work is kept")
    arguments = parser.parse_args()
    return publish(f"pruning-{arguments.model}", lambda: measure(arguments), table, draw)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The dense network and every criterion at every ratio; one ratio is timed."""
    name = arguments.model
    module, dense = trained(name)
    calibration = [x for x, _ in datasets.load(CALIBRATION).subset(arguments.calibration).batches(32)]
    if arguments.timed is not None and arguments.timed not in arguments.ratios:
        raise UserError(f"--timed {arguments.timed:g} is none of --ratios; give one of them.")
    timed = arguments.timed or min(arguments.ratios, key=lambda ratio: abs(ratio - 2))
    rows: list[dict[str, Any]] = []
    kept: list[tuple[dict[str, Any], Hub]] = []
    first: dict[str, Any] = {"criterion": "dense", "repair": False, "asked": 1.0}
    for about, hub in chain([(first, dense)], pruned(arguments, module, dense, calibration)):
        folder = folder_of(arguments, about)
        row = about | costs(hub)
        row["top1"] = top1_of(hub, folder / f"pruned-{arguments.images}.json", arguments.images)
        last = row["repair"] or row["criterion"] == THEIRS
        if arguments.epochs and last and row["asked"] == timed:
            row["top1_trained"] = trained_top1(arguments, hub, folder)
            row["trained_on"] = json.loads((folder / f"{trained_name(arguments)}-device.json").read_text())
        print(f"{row['criterion']} repair={row['repair']} {row['macs']:,} MACs: {row['top1']:.2f} %", flush=True)
        rows.append(row)
        if hub is dense or row["asked"] == timed:
            kept.append((row, hub))
    reports = {target: timed_in(target, kept, arguments.seconds) for target in EXPORTS}
    return {
        "model": name,
        "timed": timed,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": dict(reports["onnx"].environment),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "calibration": f"{sum(map(len, calibration))} images of {CALIBRATION}",
        "data": f"{arguments.images} images of {TEST}",
        "any_width": arguments.any_width,
        "training": {name: getattr(arguments, name) for name in ("epochs", "train", "rate")},
        "threads": 1,
        "warnings": sorted({warning for report in reports.values() for warning in report.warnings}),
        "units": {"latency": "second", "top1": "percent"},
        "rows": rows,
    }


def timed_in(target: str, networks: list[tuple[dict[str, Any], Hub]], seconds: float) -> Report:
    """The networks as files of ``target`` in one interleaved run, the first of them the reference; rows are told."""
    with tempfile.TemporaryDirectory(prefix="edgekron-pruning-") as folder:
        files = [Path(folder) / f"{index}.{target}" for index in range(len(networks))]
        for (row, hub), file in zip(networks, files, strict=True):
            EXPORTS[target](hub, file)
            row[f"bytes_{target}"] = file.stat().st_size
        report = bench(files, Measuring(threads=1, seconds=seconds))
    speedups = [None, *(asdict(interval) for interval in report.speedups)]
    for (row, _), measured, speedup in zip(networks, report.files, speedups, strict=True):
        row[f"latency_{target}"], row[f"speedup_{target}"] = asdict(measured.latency), speedup
    return report


def pruned(
    arguments: argparse.Namespace, module: nn.Module, dense: Hub, calibration: list[np.ndarray]
) -> Iterator[tuple[dict[str, Any], Hub]]:
    """Every pruned network with what is known of it; those that are there are read."""
    for ratio in arguments.ratios:
        for criterion in arguments.criteria:
            for repair in (False, True):
                about = {"criterion": criterion, "repair": repair, "asked": ratio}
                make = partial(ours, arguments, dense, about, calibration)
                yield about, kept_hub(folder_of(arguments, about) / "pruned.onnx", make)
        about = {"criterion": THEIRS, "repair": False, "asked": ratio}
        yield about, kept_hub(folder_of(arguments, about) / "pruned.onnx", partial(theirs, module, dense, ratio))


def ours(arguments: argparse.Namespace, dense: Hub, about: dict[str, Any], calibration: list[np.ndarray]) -> Hub:
    """What EdgeKron makes of the network."""
    settings = PruningSettings(any_width=arguments.any_width, repair=about["repair"])
    return prune(dense, about["criterion"], settings, ratios={"macs": about["asked"]}, data=calibration).hub


def folder_of(arguments: argparse.Namespace, about: dict[str, Any]) -> Path:
    """Where a network is kept, and what was measured of it."""
    key = about | {name: getattr(arguments, name) for name in ("model", "calibration", "any_width")}
    folder: Path = arguments.runs / f"{arguments.model}-{about['criterion']}-{about['asked']:g}-{digest_of(key)}"
    return folder


def kept_hub(file: Path, make: Callable[[], Hub]) -> Hub:
    """What is in the file, which is made where it is not there yet."""
    if not file.exists():
        make().save(file)
    return Hub.open(file)


def top1_of(hub: Hub, record: Path, images: int) -> float:
    """Top-1 in percent, which is measured where it is not in the record yet."""
    if not record.exists():
        write_file(record, json.dumps({"top1": file_top1(hub, images)[0]}))
    return float(json.loads(record.read_text())["top1"])


def trained_hub(arguments: argparse.Namespace, hub: Hub, folder: Path) -> Hub:
    """A pruned network after training with labels; what is finished is not done again."""
    settings = {"images": arguments.train, "epochs": arguments.epochs, "rate": arguments.rate}
    name = trained_name(arguments)

    def make() -> Hub:
        made, outcome = retrained(hub, **settings, folder=folder / name, identity={"network": folder.name})
        write_file(folder / f"{name}-device.json", json.dumps(", ".join(outcome.devices)), force=True)
        return made

    return kept_hub(folder / f"{name}.onnx", make)


def trained_name(arguments: argparse.Namespace) -> str:
    """What a network's training is called."""
    return f"trained-{arguments.epochs}-{arguments.rate:g}-{arguments.train}"


def trained_top1(arguments: argparse.Namespace, hub: Hub, folder: Path) -> float:
    """Top-1 of a pruned network after training, in the file."""
    made = trained_hub(arguments, hub, folder)
    found = top1_of(made, folder / f"{trained_name(arguments)}-{arguments.images}.json", arguments.images)
    print(f"{folder.name} trained for {arguments.epochs} epochs: {found:.2f} %", flush=True)
    return found


def theirs(module: nn.Module, dense: Hub, ratio: float) -> Hub:
    """What Torch-Pruning's own pruner makes of the module, at the first step with as few MACs as asked for.

    Layers that our graph finds tied to something that cannot be cut are left out: its tracer does not follow the
    shortcuts that pad channels.
    """
    import torch_pruning as tp

    shape = (1, *dense.input_shape)
    frozen = {layer for group in ChannelStructure(dense).groups if group.reason is not None for layer in group.layers}
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
    from edgekron.modules.cost import module_cost

    return module_cost(copy.deepcopy(module), shape[1:]).macs <= wanted


def costs(hub: Hub) -> dict[str, int]:
    """MACs and weights of a hub's layers."""
    layers = hub.layers()
    return {"macs": sum(x.dense_macs for x in layers), "parameters": sum(x.dense_parameters for x in layers)}


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    dense = result["rows"][0]
    measured = (
        f"`{result['command']}`, {result['date'][:10]}; {result['calibration']}; {result['data']}, in ONNX Runtime "
        f"{result['versions']['onnxruntime']}; latency of one image on one thread against the dense file with its 95 % "
        f"interval, in ONNX Runtime and LiteRT {result['versions']['ai-edge-litert']}, at {result['timed']:g} times "
        f"fewer MACs. Torch-Pruning {result['versions']['torch-pruning']} as it comes "
        "(magnitude, global)."
    )
    if result["training"]["epochs"]:
        how = result["training"]
        devices = ", ".join(sorted({row["trained_on"] for row in result["rows"] if "trained_on" in row}))
        measured += (
            f" Trained: {how['epochs']} epochs, with the labels of {how['train']:,} training images, on {devices}."
        )
    lines = [
        f"# Pruning {result['model']}",
        "",
        measured,
        "",
        "| criterion | repair | MACs | parameters | top-1 % | lost | trained | lost | as fast: ORT | LiteRT |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        after, speeds = row.get("top1_trained"), [row.get(f"speedup_{target}") for target in EXPORTS]
        cells = [
            row["criterion"],
            "least squares" if row["repair"] else "",
            f"{row['macs'] / 1e6:.1f} M (-{100 - 100 * row['macs'] / dense['macs']:.1f} %)",
            f"{row['parameters'] / 1e3:.0f} k (-{100 - 100 * row['parameters'] / dense['parameters']:.1f} %)",
            f"{row['top1']:.2f}",
            f"{dense['top1'] - row['top1']:.2f}",
            "" if after is None else f"{after:.2f}",
            "" if after is None else f"{dense['top1'] - after:.2f}",
            *("" if s is None else f"{s['value']:.2f} ({s['low']:.2f} to {s['high']:.2f})" for s in speeds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Top-1 against MACs, as left by the removal and repaired, each with a scale of its own."""
    mpl.rcParams["svg.hashsalt"] = "edgekron"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    dense = result["rows"][0]
    titles = {False: "as removed", True: "repaired, not trained"}
    for (repair, title), axes in zip(titles.items(), figure.subplots(1, 2), strict=True):
        for criterion in dict.fromkeys(row["criterion"] for row in result["rows"][1:]):
            rows = [row for row in result["rows"] if row["criterion"] == criterion and row["repair"] == repair]
            if rows:
                points = sorted((row["macs"] / 1e6, row["top1"]) for row in (dense, *rows))
                colour = COLOURS.get(criterion, THEIR_COLOUR)
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=criterion)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("million MACs for one image")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("top-1 %")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
