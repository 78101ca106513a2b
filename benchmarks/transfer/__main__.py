"""The gain of each step: top-1 against parameters and MACs, from the weights alone to knowledge transfer.

    python -m benchmarks.transfer sixconv --ratios 2.5 4 [--epochs 10] [--families kronecker low-rank]

Each family is asked for the same number of times fewer MACs (with ``--params``, parameters) and taken through the steps

    weights        decomposed by the weights alone
    means          and the mean of every layer's outputs corrected, on the bundled calibration images
    energy         and their deviation
    calibrated     instead fitted to the calibration images
    reconstructed  and blocks of layers fitted together, by gradient, to the same images without labels
    transferred    and trained with labels and a teacher, on the training images

The family ``distillation``, measured only when it is named, stands for the comparison in GKPD (Hameed et al., AAAI
2022): a thinner ResNet, as wide as the ratio lets it, trained from random weights by the network's own recipe for
``--distill-epochs``, with labels and the same teacher. It has the last step alone.

Top-1 is that of the exported ONNX file on all 10,000 test images in ONNX Runtime, which nothing is chosen by. One JSON
line is written for every finished step to ``benchmarks/results/transfer-MODEL.jsonl``; the same command goes on where
it was killed, within an epoch too. ``--time`` measures the latency of all networks that are finished in both runtimes,
as the record ``transfer-MODEL-latency``, and needs a quiet machine. ``--table`` writes the page ``transfer-MODEL`` and
its picture from what is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.common.harness import add_options, parser_of
from benchmarks.common.kept import kept_network
from benchmarks.common.networks import calibration, hub_of, ratios, trained
from benchmarks.common.record import ROOT, Place, Row, made
from benchmarks.common.thinner import full_width, thinner
from benchmarks.common.transferring import Transfer, distilled, transferred
from benchmarks.common.variants import hub_top1
from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.models.errors import DataError
from edgekron.models.train import Recipe
from edgekron.training import Outcome, re_estimate, reconstruct

from . import latency
from .report import write_report
from .rows import DISTILLATION, FAMILIES, STEPS, folder_of, read

PACKAGES = ("torch", "onnxruntime", "numpy")


def main() -> int:
    """Measures what is not there yet; exit code 2 for bad input."""
    parser = parser_of("transfer", __doc__)
    names = ("calibration", "epochs", "train", "images", "rate", "runs", "seconds")
    add_options(parser, *names, epochs=10, runs=Path("runs/transfer"), seconds=4.0)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=(*FAMILIES, DISTILLATION))
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.5, 4.0], metavar="R")
    parser.add_argument("--params", action="store_true", help="R times fewer parameters instead of MACs")
    parser.add_argument("--steps", type=int, default=400, help="steps of reconstruction a block (default: 400)")
    parser.add_argument("--distill-epochs", type=int, default=12, help="epochs of distillation (default: 12)")
    parser.add_argument("--time", action="store_true", help="only measure the latency of what is finished")
    parser.add_argument("--table", action="store_true", help="only write the table and the picture of what is there")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder to write below (default: the repository)")
    arguments = parser.parse_args()
    place = Place(f"transfer-{arguments.model}", arguments.output)
    timed, lines = Place(f"{place.stem}-latency", place.folder), place.record.with_suffix(".jsonl")
    try:
        if arguments.time:
            result = latency.measure(arguments.model, read(lines), arguments.runs, arguments.seconds)
            result["command"] = shlex.join(["python", "-m", "benchmarks.transfer", *sys.argv[1:]])
            timed.write(result)
        if arguments.table:
            write_report(arguments.model, read(lines), timed.read() if timed.record.exists() else {}, place)
        if not (arguments.time or arguments.table):
            _measure(arguments, lines)
    except (UserError, DataError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _measure(arguments: argparse.Namespace, path: Path) -> None:
    _, teacher = trained(arguments.model)
    if DISTILLATION in arguments.families:
        full_width(arguments.model)
    for ratio in arguments.ratios:
        for family in arguments.families:
            _Chain(arguments, teacher, family, ratio, path).run()


class _Chain:
    """One family at one ratio through all its steps."""

    def __init__(self, arguments: argparse.Namespace, teacher: Hub, family: str, ratio: float, path: Path) -> None:
        self._arguments, self._teacher, self._family, self._ratio, self._path = arguments, teacher, family, ratio, path
        self._unit = "parameters" if arguments.params else "macs"
        dense = family == DISTILLATION
        self._steps = STEPS[-1:] if dense else STEPS
        # A dense network is neither calibrated nor reconstructed, and trained by the recipe.
        self._key = {
            "model": arguments.model,
            "family": family,
            "unit": self._unit,
            "ratio": ratio,
            "calibration": 0 if dense else arguments.calibration,
            "steps": 0 if dense else arguments.steps,
            "epochs": arguments.distill_epochs if dense else arguments.epochs,
            "train": arguments.train,
            "rate": Recipe.read(arguments.model).learning_rate if dense else arguments.rate,
            "test": arguments.images,
        }
        self._folder = folder_of(arguments.runs, self._key)

    def run(self) -> None:
        """Every step that has no line yet; hubs of finished steps are read from the folder."""
        done = {row["step"] for row in read(self._path) if row["key"] == self._key}
        for step in self._steps:
            if step in done and (self._folder / f"{step}.onnx").exists():
                continue
            hub, facts = self.made(step)
            if step in done:
                continue
            top1, _ = hub_top1(hub, self._arguments.images)
            row = {"key": self._key, "step": step, **facts, "top1": top1, **made(*PACKAGES)}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{self._family} {self._ratio:g}x {step}: top-1 {top1:.2f} % ({facts['seconds']:.0f} s)", flush=True)

    def made(self, step: str) -> tuple[Hub, Row]:
        """The network after a step, and its facts, from the folder if finished."""

        def make() -> tuple[Hub, Row]:
            start = time.perf_counter()
            hub, facts = self._distilled() if self._family == DISTILLATION else self._step(step)
            return hub, {**facts, "seconds": round(time.perf_counter() - start, 1)}

        return kept_network(self._folder, step, make)

    def _step(self, step: str) -> tuple[Hub, Row]:
        if step in ("weights", "calibrated"):
            data = calibration(self._arguments.calibration)
            result = compress(
                self._teacher,
                model=self._arguments.model,
                ratios={self._unit: self._ratio},
                data=data if step == "calibrated" else [],
                method=self._family,
            )
            return result.hub, {"ratios": ratios(self._teacher, result.hub)}
        origin = "weights" if step in ("means", "energy") else "calibrated"
        facts = {"ratios": self.made(origin)[1]["ratios"]}
        before = Hub.open(self._folder / f"{'reconstructed' if step == 'transferred' else origin}.onnx")
        if step in ("means", "energy"):
            return re_estimate(before, self._teacher, self._calibration(), rescale=step == "energy"), facts
        if step == "reconstructed":
            hub, blocks = reconstruct(before, self._teacher, self._calibration(), steps=self._arguments.steps)
            return hub, {**facts, "blocks": [asdict(block) for block in blocks]}
        return self._transferred(before, facts)

    def _transferred(self, hub: Hub, facts: Row) -> tuple[Hub, Row]:
        how = Transfer(self._arguments.train, self._arguments.epochs, self._arguments.rate)
        folder = self._folder / "training"
        student, outcome = transferred(hub, self._teacher, how, folder=folder, identity=self._key)
        return student, {**facts, **told(outcome)}

    def _distilled(self) -> tuple[Hub, Row]:
        model = self._arguments.model
        module, width, fewer = thinner(model, self._teacher, self._unit, self._ratio)
        outcome = distilled(
            module,
            self._teacher,
            Recipe.read(model),
            images=self._arguments.train,
            epochs=self._arguments.distill_epochs,
            folder=self._folder / "training",
            identity=self._key,
        )
        return hub_of(model, module), {"ratios": fewer, "width": width, **told(outcome)}

    def _calibration(self) -> np.ndarray:
        return np.concatenate(calibration(self._arguments.calibration))


def told(outcome: Outcome) -> Row:
    """The facts of a training in a line."""
    facts = {"best_epoch": outcome.best_epoch, "training_seconds": round(outcome.seconds)}
    return {**facts, "device": ", ".join(outcome.devices)}


if __name__ == "__main__":
    sys.exit(main())
