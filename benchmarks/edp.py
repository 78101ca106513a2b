"""Low rank and sparse channels in one training stage, against pruning, factorizing and training one after the other.

    python -m benchmarks.edp resnet56 [--ratio 2] [--epochs 5] [--taught pruned]

Networks with that many times fewer MACs, each trained for as many epochs, with the same settings:

    edp             learns its ranks and channels in these epochs
    edp-any-width   the same, but numbers of channels are not rounded to ones that run well
    separate        pruned and factorized by calibration images (absorb+channel-svd), then trained
    pruned          pruned alone (absorb), then trained

Networks named by ``--taught`` are trained once more, with the dense network as teacher. All are made by the commands
that a user would give. Top-1 is that of the exported files on all 10,000 test images, in ONNX Runtime and in LiteRT;
latency that of one image on one thread, against the dense files in interleaved runs. The folders stay in ``runs/edp``,
and the same command goes on where it was killed. The record is ``edp-MODEL``, with a page.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import table as tables
from benchmarks.common.commands import Commands
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import CALIBRATION, TEST, TRAIN
from benchmarks.common.record import Record, Row, day, made
from benchmarks.common.variants import RUNTIMES, enter_times

PACKAGES = ("torch", "onnxruntime", "ai-edge-litert", "numpy")
#: The method that each network is compressed by before it is trained.
BEFORE = {"separate": "absorb+channel-svd", "pruned": "absorb"}
#: Options of those that are compressed while they are.
WHILE = {"edp": (), "edp-any-width": ("--any-width",)}
NETWORKS = (*WHILE, *BEFORE)
#: What the name of a network that has had a teacher ends with.
TAUGHT = "-taught"


def options(parser: argparse.ArgumentParser) -> None:
    """Which networks, how they are trained, and how well they are measured."""
    names = ("ratio", "epochs", "rate", "train", "calibration", "images", "seconds", "runs")
    add_options(parser, *names, runs=Path("runs/edp"))
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS, help="default: all")
    parser.add_argument("--taught", nargs="+", default=(), choices=NETWORKS, help="which have a teacher, too")


def measure(arguments: argparse.Namespace) -> Record:
    """All networks: made, exported, verified, evaluated and benched."""
    name = f"{arguments.model}-{arguments.ratio:g}x-{arguments.epochs}-{arguments.rate:g}-{arguments.train}"
    folder = (arguments.runs / f"{name}-{arguments.calibration}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = Commands(folder)
    names = [*arguments.networks, *(f"{network}{TAUGHT}" for network in arguments.taught)]
    rows = [{"name": "dense", **costs(run.json("inspect", arguments.model)["layers"])}]
    rows += [{"name": name, **network(run, arguments, name)} for name in names]
    machines = [in_runtime(run, arguments, rows, target) for target in RUNTIMES]
    given = ("model", "ratio", "epochs", "rate", "train", "calibration", "images", "seconds", "networks", "taught")
    return made(*PACKAGES) | {
        "model": arguments.model,
        "machine": machines[0],
        "settings": {key: getattr(arguments, key) for key in given},
        "data": {"calibration": CALIBRATION, "train": TRAIN, "images": TEST},
        "units": {"latency": "second", "top1": "percent", "seconds": "seconds"},
        "commands": run.ran,
        "rows": rows,
    }


def in_runtime(run: Commands, arguments: argparse.Namespace, rows: list[Row], target: str) -> dict[str, Any]:
    """Files of all networks in one runtime, verified, evaluated and benched; gives the machine."""
    files = [f"{row['name']}.{target}" for row in rows]
    for row, file in zip(rows, files, strict=True):
        source = arguments.model if row["name"] == "dense" else row["name"]
        if not (run.folder / file).exists():
            run("export", source, "--to", target, "-o", file)
        row[f"verified_{target}"] = run.json("verify", source, file, "--tolerance", "1e-4")
    for row, top1 in zip(rows, evaluated(run, files, arguments), strict=True):
        row[f"top1_{target}"] = top1
    report = run.measured("bench", *files, "--seconds", f"{arguments.seconds:g}")
    enter_times(rows, [file["latency"] for file in report["files"]], report["speedups"], f"_{target}")
    machine: dict[str, Any] = report["environment"]
    return machine


def network(run: Commands, arguments: argparse.Namespace, name: str) -> Row:
    """The row of a trained network, which is made unless its folder is there."""
    kind = name.removesuffix(TAUGHT)
    method, source = BEFORE.get(kind), arguments.model if kind in WHILE else f"{kind}-before"
    if method and not (run.folder / source).exists():
        data = ("--data", CALIBRATION, "--images", f"{arguments.calibration}")
        run("compress", arguments.model, "--method", method, "--ratio", f"{arguments.ratio:g}", *data, "-o", source)
    if not (run.folder / name).exists():
        how = ["--method", "edp", "--ratio", f"{arguments.ratio:g}", *WHILE[kind]] if kind in WHILE else []
        how += ["--teacher", arguments.model] if name.endswith(TAUGHT) else []
        run(
            "finetune", source, *how, "--data", TRAIN, "--images", f"{arguments.train}", "--epochs",
            f"{arguments.epochs}", "--lr", f"{arguments.rate:g}", "-o", name,
        )  # fmt: skip
    report = json.loads((run.folder / name / "report.json").read_text())
    facts: Row = {"totals": report["totals"], "training": report["training"]}
    facts |= {unit: total["compressed"] for unit, total in report["totals"].items()}
    if method:
        before = f"{source}.onnx"
        if not (run.folder / before).exists():
            run("export", source, "--to", "onnx", "-o", before)
        (facts["top1_before"],) = evaluated(run, [before], arguments)
    return facts


def evaluated(run: Commands, files: list[str], arguments: argparse.Namespace) -> list[float]:
    """Top-1 of files in percent."""
    found = run.measured("evaluate", *files, "--data", TEST, "--limit", f"{arguments.images}")
    return [100 * file["top1"] for file in found["files"]]


def costs(layers: list[dict[str, Any]]) -> dict[str, int]:
    """MACs and weights of a dense network."""
    return {unit: sum(layer[unit] for layer in layers) for unit in ("macs", "parameters")}


def table(result: Record) -> str:
    """The networks as Markdown."""
    dense, settings = result["rows"][0], result["settings"]
    setting = (
        f"`{result['command']}`, {day(result)}: {settings['epochs']} epochs of {settings['train']:,} images of "
        f"Fashion-MNIST each; {settings['images']:,} test images; latency of one image on one thread "
        f"against the dense file, with its 95 % interval; ONNX Runtime {result['versions']['onnxruntime']}, LiteRT "
        f"{result['versions']['ai-edge-litert']}."
    )
    heads = ["network", "MACs", "parameters", "top-1 before training", "after: ONNX Runtime", "LiteRT", "lost"]
    heads += ["as fast: ONNX Runtime", "LiteRT", "trained in"]
    title = f"# Low rank and sparse channels in one stage: {result['model']}"
    lines = [title, "", setting, "", *tables.head(heads)]
    for row in result["rows"]:
        seconds = sum(stage["seconds"] for stage in row.get("training", []))
        saved = [(row[unit] / 1e6, 100 - 100 * row[unit] / dense[unit]) for unit in ("macs", "parameters")]
        cells = [
            row["name"],
            *(f"{left:.2f} M (-{percent:.1f} %)" for left, percent in saved),
            f"{row['top1_before']:.2f}" if "top1_before" in row else "",
            *(f"{row[f'top1_{target}']:.2f}" for target in RUNTIMES),
            f"{dense['top1_onnx'] - row['top1_onnx']:.2f}",
            *(tables.interval(row[f"speedup_{target}"]) for target in RUNTIMES),
            f"{seconds / 60:.0f} min on {row['training'][-1].get('device', 'an unknown device')}" if seconds else "",
        ]
        lines.append(tables.row(cells))
    return "\n".join(lines) + "\n"


EXPERIMENT = Experiment("edp", __doc__, "edp-{model}", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
