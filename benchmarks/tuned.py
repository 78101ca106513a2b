"""What 4x fewer multiply-accumulates are worth in time, with tuned forms.

    python -m benchmarks.tuned [--seconds 6]

Two networks, each compressed 4x by several families (one by hand, 3.9x) without data, as values decide no time, tuned
for one runtime at one thread, and exported dense, compressed with the default forms, and compressed with the tuned
ones. The three files are measured twice, side by side: by the processor time of their thread, which does not count what
other processes take, and by the clock on the wall with ``edgekron bench``'s code. On an idle machine both say the same.
Each combination of network, family and runtime enters the record ``tuned`` as soon as it is measured, and an
interrupted run goes on from there. The page is made of the record.

*kept* is the speed-up by processor time over the ratio of multiply-accumulates. The goal is 0.9 on the residual network
and 0.6 on the six convolutions, and no tuned file slower than its dense one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import table as tables
from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import ratios, trained
from benchmarks.common.record import Place, Record, Row, day, made
from benchmarks.common.variants import RUNTIMES, Variant, files_of
from edgekron.compression.compressor import apply_plan
from edgekron.exporters.tuning import FILL, checked, subjects_of_plan, tune, tuned_plan
from edgekron.exporters.tuning.race import Race, pinned
from edgekron.graph import Hub, load
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.planning.survey import make_plan
from edgekron.runtimes import Interval, bench
from edgekron.runtimes.agent import environment

RATIO, WIDTH, BLOCKS, ROUNDS = 4.0, 128, 4, 30
GOALS = {"resnet-128": 0.9, "sixconv": 0.6}
METHODS = ("low-rank", "tucker")
#: A Kronecker product of two small kernels in every convolution of 128 channels, by plan: the layer with most forms.
PRODUCT = LayerPlan("kronecker", "f 4x32, c 4x32, h 1x3, w 1x3", (1,))
PACKAGES = ("onnxruntime", "ai-edge-litert")


class Block(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class ResNet128(nn.Module):
    """A stem and residual blocks of 128 channels, all at 28x28, as in the middle of a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


def network(name: str) -> Hub:
    """The dense network."""
    if name == "sixconv":
        return trained(name)[1]
    torch.manual_seed(0)
    return load(ResNet128().eval(), input_shape=(3, 28, 28))


def options(parser: argparse.ArgumentParser) -> None:
    """How long each file is timed."""
    add_options(parser, "seconds", model=False, seconds=6.0)


def measure(arguments: argparse.Namespace) -> Record:
    """Every network, family and runtime that the record lacks."""
    place = Place("tuned", arguments.output)
    rows = place.earlier("rows")
    methods = {name: (*METHODS, PRODUCT.method) if name == "resnet-128" else METHODS for name in GOALS}
    for key in (f"{name}/{method}/{target}" for name in GOALS for method in methods[name] for target in RUNTIMES):
        if key in rows:
            continue
        rows[key] = row = measured(*key.split("/"), seconds=arguments.seconds)
        print(key, row["macs"], {k: row[k] for k in ("dense_ms", "default", "tuned", "kept")}, flush=True)
        place.write(
            made(*PACKAGES)
            | {
                "machine": environment.describe() | {"cores": os.cpu_count()},
                "definition": "ratio: times as fast as the dense file; kept: ratio over the ratio of MACs asked for",
                "rows": rows,
            }
        )
    return place.read()


def measured(name: str, method: str, target: str, seconds: float) -> Row:
    """Everything about one network and family on one runtime, tuned for it alone."""
    hub = network(name)
    if method == PRODUCT.method:
        plan = CompressionPlan(name, {layer.name: PRODUCT for layer in hub.layers() if layer.name.startswith("blocks")})
    else:
        plan = make_plan(hub, model=name, ratios={"macs": RATIO}, method=method, fill=FILL[target])
    subjects = subjects_of_plan(hub, plan, fitted=False)
    tuning = checked(tune(subjects, [target]), hub, subjects)
    tuned = tuned_plan(plan, tuning, subjects)
    compressed = {"default": apply_plan(hub, plan), "tuned": apply_plan(hub, tuned)}
    macs = {key: ratios(hub, one.hub)["macs"] for key, one in compressed.items()}
    row: Row = {"macs": macs, "tuning": tuning.to_json(), "layers": _layers(tuned)}
    with files_of([Variant.of(one, {}) for one in (hub, *(one.hub for one in compressed.values()))], target) as files:
        row |= _raced(files, list(compressed))
        row["wall"] = _benched(files, list(compressed), seconds)
    row["kept"] = row["tuned"]["ratio"] / macs["default"]
    row["reached"] = row["kept"] >= GOALS[name]
    row["not_slower"] = row["tuned"]["interval"][1] >= 1.0
    return row


def _raced(files: list[Path], names: list[str]) -> dict[str, Any]:
    """By the processor's time, in this process: other work of the machine does not count."""
    with pinned(1):
        race = Race(files, threads=1)
        race.run(3, range(len(files)), 0.05)
        race.run(ROUNDS, range(len(files)), 0.05)
        found = {name: _interval(race.ratio(0, index, ROUNDS)) for index, name in enumerate(names, 1)}
        result = {"dense_ms": 1e3 * race.seconds(0, ROUNDS), **found}
        race.close()
    return result


def _benched(files: list[Path], names: list[str], seconds: float) -> dict[str, Any]:
    """By the clock on the wall, each file in a process of its own."""
    report = bench(files, seconds=seconds, rounds=ROUNDS)
    found = {name: _interval(one) for name, one in zip(names, report.speedups, strict=True)}
    return {"dense_ms": 1e3 * report.files[0].latency.median, **found, "warnings": list(report.warnings)}


def _interval(one: Interval) -> dict[str, Any]:
    return {"ratio": one.value, "interval": [one.low, one.high]}


def _layers(plan: CompressionPlan) -> dict[str, Any]:
    return {
        name: {"method": line.method, "shape": line.shape, "rank": list(line.ranks), "measured": dict(line.measured)}
        for name, line in plan.layers.items()
    }


def table(record: Record) -> str:
    """The record as a page of Markdown."""
    facts = record["machine"]
    heads = ["network", "family", "x fewer MACs", "runtime", "dense ms", "default", "tuned", "kept", "goal"]
    lines = [
        "# Tuned forms",
        "",
        f"What {RATIO:g}x fewer multiply-accumulates are worth at one thread: {facts['processor']} ({day(record)}).",
        "Compressed without data and tuned layer by layer, as `edgekron compress ... --tune` does. *Kept* is the",
        "speed-up over the ratio of multiply-accumulates before tuning. In brackets: 95 % intervals of how many times",
        "as fast as the dense file. Times are the processor time of the one thread; the last column is by the clock on",
        "the wall, in processes of their own, and says the same where the machine has nothing else to do.",
        "Written by `python -m benchmarks.tuned`.",
        "",
        *tables.head([*heads, "tuned, by the wall"]),
    ]
    for key, one in record["rows"].items():
        name, method, target = key.split("/")
        runtime = one["tuning"]["machine"][target]
        cells = [name, method, f"{one['macs']['default']:.2f}", f"{runtime['runtime']} {runtime['version']}"]
        cells += [f"{one['dense_ms']:.3f}", _times(one["default"]), _times(one["tuned"]), f"{one['kept']:.2f}"]
        cells += [f"{GOALS[name]:g} {'reached' if one['reached'] else 'missed'}", _times(one["wall"]["tuned"])]
        lines.append(tables.row(cells))
    slower = [key for key, row in record["rows"].items() if not row["not_slower"]]
    lines += ["", f"Tuned files slower than their dense ones: {', '.join(slower) or 'none'}.", ""]
    return "\n".join(lines)


def _times(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['ratio']:.2f} [{low:.2f}, {high:.2f}]"


EXPERIMENT = Experiment("tuned", __doc__, "tuned", measure, options, table)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
