"""Pruning: top-1 against MACs by every criterion, without training and with, repaired or not, and measured latency.

    python -m benchmarks.pruning resnet56
    python -m benchmarks.pruning resnet20 --ratios 1.5 --images 1000 --calibration 128

At each ratio of MACs the network is pruned by every criterion, left as it is and repaired by least squares, and by
Torch-Pruning's own pruner as it comes (magnitude importance, global ranking, pruned until it has no more MACs than
asked for; ``pip install torch-pruning``). The files of one ratio are timed in ONNX Runtime and in LiteRT against the
dense network, all of them in one interleaved run; with ``--epochs``, the networks of this ratio are also trained,
repaired ones and Torch-Pruning's, all in the same way. The same command goes on where it was killed, within an epoch
too. The record is ``pruning-MODEL``, with a page and a picture.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.kept import kept_hub, kept_network, kept_top1
from benchmarks.common.networks import CALIBRATION, TEST, calibration, costs, taken, trained
from benchmarks.common.picture import picture
from benchmarks.common.record import Record, Row, day, digest_of, made
from benchmarks.common.transferring import Transfer, retrained
from benchmarks.common.variants import RUNTIMES, Variant, compare
from edgekron import graph
from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.pruning import CRITERIA, ChannelStructure, PruningSettings, prune

COLOURS = dict(zip(CRITERIA, ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#e69f00", "#999999"), strict=True))
THEIRS, THEIR_COLOUR = "torch-pruning", "#cc79a7"
RATIOS = (1.25, 1.5, 1.75, 1.94, 2.25, 2.75)
PACKAGES = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy", "torch-pruning")
#: Steps that Torch-Pruning's pruner takes from nothing to everything; it stops at the first that meets the ratio.
STEPS = 200


def options(parser: argparse.ArgumentParser) -> None:
    """Which network, pruned how and how much, measured how well."""
    names = ("calibration", "images", "seconds", "epochs", "train", "rate", "runs")
    add_options(parser, *names, epochs=0, runs=Path("runs/pruning"))
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, metavar="R", help="R times fewer MACs")
    parser.add_argument("--timed", type=float, metavar="R", help="the ratio that is timed (default: nearest to 2)")
    parser.add_argument("--criteria", nargs="+", default=CRITERIA, choices=CRITERIA, help="default: all")
    parser.add_argument("--any-width", action="store_true", help="do not raise channels to numbers that run well")


def measure(arguments: argparse.Namespace) -> Record:
    """The dense network and every criterion at every ratio; one ratio is timed."""
    name = arguments.model
    module, dense = trained(name)
    if arguments.timed is not None and arguments.timed not in arguments.ratios:
        raise UserError(f"--timed {arguments.timed:g} is none of --ratios; give one of them.")
    timed = arguments.timed or min(arguments.ratios, key=lambda ratio: abs(ratio - 2))
    rows: list[Row] = []
    variants: list[Variant] = []
    first = {"criterion": "dense", "repair": False, "asked": 1.0}
    for about, hub in chain([(first, dense)], pruned(arguments, module, dense)):
        folder = folder_of(arguments, about)
        row = about | costs(hub)
        row["top1"] = kept_top1(folder / f"pruned-{arguments.images}.json", hub, arguments.images)
        last = row["repair"] or row["criterion"] == THEIRS
        if arguments.epochs and last and row["asked"] == timed:
            row |= after_training(arguments, hub, folder)
        print(f"{row['criterion']} repair={row['repair']} {row['macs']:,} MACs: {row['top1']:.2f} %", flush=True)
        rows.append(row)
        if hub is dense or row["asked"] == timed:
            variants.append(Variant.of(hub, row))
    reports = [compare(variants, target, seconds=arguments.seconds, suffix=f"_{target}") for target in RUNTIMES]
    return made(*PACKAGES) | {
        "model": name,
        "timed": timed,
        "machine": dict(reports[0].environment),
        "calibration": taken(arguments.calibration, CALIBRATION),
        "data": taken(arguments.images, TEST),
        "any_width": arguments.any_width,
        "training": {name: getattr(arguments, name) for name in ("epochs", "train", "rate")},
        "threads": 1,
        "warnings": sorted({warning for report in reports for warning in report.warnings}),
        "units": {"latency": "second", "top1": "percent"},
        "rows": rows,
    }


def pruned(arguments: argparse.Namespace, module: nn.Module, dense: Hub) -> Iterator[tuple[Row, Hub]]:
    """Every pruned network, with criterion, repair and ratio; finished networks are read from their folders."""
    data = calibration(arguments.calibration)
    for ratio in arguments.ratios:
        for criterion in arguments.criteria:
            for repair in (False, True):
                about = {"criterion": criterion, "repair": repair, "asked": ratio}
                make = partial(ours, arguments, dense, about, data)
                yield about, kept_hub(folder_of(arguments, about) / "pruned.onnx", make)
        about = {"criterion": THEIRS, "repair": False, "asked": ratio}
        yield about, kept_hub(folder_of(arguments, about) / "pruned.onnx", partial(theirs, module, dense, ratio))


def ours(arguments: argparse.Namespace, dense: Hub, about: Row, calibration: list[np.ndarray]) -> Hub:
    """What EdgeKron makes of the network."""
    settings = PruningSettings(any_width=arguments.any_width, repair=about["repair"])
    return prune(dense, about["criterion"], settings, ratios={"macs": about["asked"]}, data=calibration).hub


def folder_of(arguments: argparse.Namespace, about: Row) -> Path:
    """The folder of a network and of its measurements."""
    key = about | {name: getattr(arguments, name) for name in ("model", "calibration", "any_width")}
    folder: Path = arguments.runs / f"{arguments.model}-{about['criterion']}-{about['asked']:g}-{digest_of(key)}"
    return folder


def after_training(arguments: argparse.Namespace, hub: Hub, folder: Path) -> Row:
    """Top-1 of a pruned network's file after training with labels, and the device that trained the network.

    Finished training is not done again.
    """
    name = f"trained-{arguments.epochs}-{arguments.rate:g}-{arguments.train}"
    how = Transfer(arguments.train, arguments.epochs, arguments.rate, clip=1.0)

    def make() -> tuple[Hub, Row]:
        hub_after, outcome = retrained(hub, how, folder=folder / name, identity={"network": folder.name})
        return hub_after, {"trained_on": ", ".join(outcome.devices)}

    hub_after, facts = kept_network(folder, name, make)
    found = kept_top1(folder / f"{name}-{arguments.images}.json", hub_after, arguments.images)
    print(f"{folder.name} trained for {arguments.epochs} epochs: {found:.2f} %", flush=True)
    return {"top1_trained": found, **facts}


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


def table(result: Record) -> str:
    """The rows as Markdown."""
    dense = result["rows"][0]
    measured = (
        f"`{result['command']}`, {day(result)}; {result['calibration']}; {result['data']}, in ONNX Runtime "
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
    heads = [
        "criterion",
        "repair",
        "MACs",
        "parameters",
        "top-1 %",
        "lost",
        "trained",
        "lost",
        "as fast: ORT",
        "LiteRT",
    ]
    lines = [f"# Pruning {result['model']}", "", measured, "", *tables.head(heads)]
    for row in result["rows"]:
        after = row.get("top1_trained")
        cells = [
            row["criterion"],
            "least squares" if row["repair"] else "",
            f"{row['macs'] / 1e6:.1f} M (-{100 - 100 * row['macs'] / dense['macs']:.1f} %)",
            f"{row['parameters'] / 1e3:.0f} k (-{100 - 100 * row['parameters'] / dense['parameters']:.1f} %)",
            f"{row['top1']:.2f}",
            f"{dense['top1'] - row['top1']:.2f}",
            "" if after is None else f"{after:.2f}",
            "" if after is None else f"{dense['top1'] - after:.2f}",
            *(tables.interval(row.get(f"speedup_{target}")) for target in RUNTIMES),
        ]
        lines.append(tables.row(cells))
    return "\n".join(lines) + "\n"


def draw(result: Record, path: Path) -> None:
    """Top-1 against MACs, as left by the removal and repaired, each with a scale of its own."""
    dense = result["rows"][0]
    titles = {False: "as removed", True: "repaired, not trained"}
    with picture(path, 9, 3.6) as figure:
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


EXPERIMENT = Experiment("pruning", __doc__, "pruning-{model}", measure, options, table, draw)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
