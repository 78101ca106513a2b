"""What each step wins back: top-1 against parameters and MACs, from the weights alone to knowledge transfer.

    python benchmarks/transfer.py sixconv --ratios 2.5 4 [--epochs 10] [--families kronecker low-rank]

Each family is asked for the same number of times fewer MACs (with ``--params``, parameters) and taken through the steps

    weights        decomposed by the weights alone
    means          and the mean of every layer's outputs corrected, on the bundled calibration images
    energy         and their deviation
    calibrated     instead fitted to the calibration images
    reconstructed  and blocks of layers fitted together, by gradient, to the same images without labels
    transferred    and trained with labels and a teacher, on the training images

The family ``distillation``, which is measured only where it is named, is what these are compared with in GKPD (Hameed
et al., AAAI 2022): a thinner ResNet, as wide as the ratio lets it, trained from random weights by the network's own
recipe for ``--distill-epochs``, with labels and the same teacher. It has the last step alone.

Top-1 is that of the exported ONNX file on all 10,000 test images in ONNX Runtime, which nothing is chosen by. One JSON
line is written for every finished step to ``benchmarks/results/transfer-MODEL.jsonl``; the same command goes on where
it was killed, within an epoch too. ``--time`` measures the latency of all networks that are finished in both runtimes,
to ``benchmarks/results/transfer-MODEL-latency.json``, and needs a quiet machine. ``--table`` writes
``docs/transfer-MODEL.md`` and its picture from what is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import transfer_latency
from publishing import ROOT, trained
from thinner import full_width, hub_of, thinner
from transfer_report import write_report
from transfer_rows import DISTILLATION, FAMILIES, STEPS, folder_of, latency_path, read
from transferring import calibration_images, distilled, file_top1, transferred

from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.models.train import Recipe
from edgekron.training import TrainingOutcome, re_estimate, reconstruct

PACKAGES = ("edgekron", "torch", "onnxruntime", "numpy")


def main() -> int:
    """Measures what is not there yet; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as sixconv")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=(*FAMILIES, DISTILLATION))
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.5, 4.0], metavar="R")
    parser.add_argument("--params", action="store_true", help="R times fewer parameters instead of MACs")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--steps", type=int, default=400, help="steps of reconstruction a block (default: 400)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of transfer (default: 10)")
    parser.add_argument("--distill-epochs", type=int, default=12, help="epochs of distillation (default: 12)")
    parser.add_argument("--train", type=int, default=60_000, help="training images (default: all 60,000)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate of transfer (default: 0.02)")
    parser.add_argument("--results", type=Path, help="the file of lines")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"), help="where unfinished work is kept")
    parser.add_argument("--time", action="store_true", help="only measure the latency of what is finished")
    parser.add_argument("--seconds", type=float, default=4.0, help="timed seconds a file (default: 4)")
    parser.add_argument("--table", action="store_true", help="only write the table and the picture of what is there")
    arguments = parser.parse_args()
    path = arguments.results or ROOT / "benchmarks" / "results" / f"transfer-{arguments.model}.jsonl"
    try:
        if arguments.time:
            result = transfer_latency.measure(arguments.model, read(path), arguments.runs, arguments.seconds)
            result["command"] = shlex.join(["python", "benchmarks/transfer.py", *sys.argv[1:]])
            write_file(latency_path(path), json.dumps(result, indent=1) + "\n", force=True)
        if arguments.table:
            write_report(arguments.model, read(path), latency_path(path))
        if not (arguments.time or arguments.table):
            _measure(arguments, path)
    except UserError as error:
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
            top1, _ = file_top1(hub, self._arguments.images)
            row = {"key": self._key, "step": step, **facts, "top1": top1}
            row["date"] = datetime.now(UTC).isoformat(timespec="minutes")
            row["versions"] = {package: metadata.version(package) for package in PACKAGES}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{self._family} {self._ratio:g}x {step}: top-1 {top1:.2f} % ({facts['seconds']:.0f} s)", flush=True)

    def made(self, step: str) -> tuple[Hub, dict[str, Any]]:
        """The network after a step, and what is known of it; made where it is not in the folder yet."""
        file, record = self._folder / f"{step}.onnx", self._folder / f"{step}.json"
        if not (file.exists() and record.exists()):
            start = time.perf_counter()
            hub, facts = self._distilled() if self._family == DISTILLATION else self._step(step)
            facts["seconds"] = round(time.perf_counter() - start, 1)
            hub.save(file, force=True)
            write_file(record, json.dumps(facts), force=True)
        return Hub.open(file), json.loads(record.read_text())

    def _step(self, step: str) -> tuple[Hub, dict[str, Any]]:
        if step in ("weights", "calibrated"):
            data = [self._calibration()[i : i + 32] for i in range(0, self._arguments.calibration, 32)]
            made = compress(
                self._teacher,
                model=self._arguments.model,
                ratios={self._unit: self._ratio},
                data=data if step == "calibrated" else [],
                method=self._family,
            )
            return made.hub, {"ratios": {unit: total["ratio"] for unit, total in made.report["totals"].items()}}
        origin = "weights" if step in ("means", "energy") else "calibrated"
        facts = {"ratios": self.made(origin)[1]["ratios"]}
        before = Hub.open(self._folder / f"{'reconstructed' if step == 'transferred' else origin}.onnx")
        if step in ("means", "energy"):
            return re_estimate(before, self._teacher, self._calibration(), rescale=step == "energy"), facts
        if step == "reconstructed":
            hub, blocks = reconstruct(before, self._teacher, self._calibration(), steps=self._arguments.steps)
            return hub, {**facts, "blocks": [asdict(block) for block in blocks]}
        return self._transferred(before, facts)

    def _transferred(self, hub: Hub, facts: dict[str, Any]) -> tuple[Hub, dict[str, Any]]:
        student, outcome = transferred(
            hub,
            self._teacher,
            images=self._arguments.train,
            epochs=self._arguments.epochs,
            rate=self._arguments.rate,
            folder=self._folder / "training",
            identity=self._key,
        )
        return student, {**facts, **told(outcome)}

    def _distilled(self) -> tuple[Hub, dict[str, Any]]:
        model = self._arguments.model
        module, width, ratios = thinner(model, self._teacher, self._unit, self._ratio)
        outcome = distilled(
            module,
            self._teacher,
            Recipe.read(model),
            images=self._arguments.train,
            epochs=self._arguments.distill_epochs,
            folder=self._folder / "training",
            identity=self._key,
        )
        return hub_of(model, module), {"ratios": ratios, "width": width, **told(outcome)}

    def _calibration(self) -> np.ndarray:
        return calibration_images(self._arguments.calibration)


def told(outcome: TrainingOutcome) -> dict[str, Any]:
    """What a line says of a training."""
    facts = {"best_epoch": outcome.best_epoch, "training_seconds": round(outcome.seconds)}
    return {**facts, "device": ", ".join(outcome.devices)}


if __name__ == "__main__":
    sys.exit(main())
