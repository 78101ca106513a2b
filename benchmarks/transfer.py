"""What each step wins back: top-1 against parameters and MACs, from the weights alone to knowledge transfer.

    python benchmarks/transfer.py sixconv --ratios 2.5 4 [--epochs 10] [--families kronecker low-rank]

Each family is asked for the same number of times fewer MACs (with ``--params``, parameters) and taken through the steps

    weights        decomposed by the weights alone
    means          and the mean of every layer's outputs corrected, on the bundled calibration images
    energy         and their deviation
    calibrated     instead fitted to the calibration images
    reconstructed  and blocks of layers fitted together, by gradient, to the same images without labels
    transferred    and trained with labels and a teacher, on the training images

Top-1 is that of the exported ONNX file on all 10,000 test images in ONNX Runtime, which nothing is chosen by. One JSON
line is written for every finished step to ``benchmarks/results/transfer-MODEL.jsonl``; the same command goes on where
it was killed, within an epoch too. ``--table`` writes ``docs/transfer-MODEL.md`` and its picture from what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from edgekron import graph, models
from edgekron.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.files import write_file
from edgekron.graph import Hub
from edgekron.models import datasets
from edgekron.models.train import both
from edgekron.runtimes import top1
from edgekron.training import (
    Augmentation,
    GraphModule,
    KnowledgeTransfer,
    ResponseCache,
    Settings,
    Trainer,
    begin_norms,
    joined,
    re_estimate,
    reconstruct,
)

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("kronecker", "low-rank", "tt", "tr", "tucker")
STEPS = ("weights", "means", "energy", "calibrated", "reconstructed", "transferred")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
PACKAGES = ("edgekron", "torch", "onnxruntime", "numpy")


def main() -> int:
    """Measures what is not there yet; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a bundled trained network, such as sixconv")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.5, 4.0], metavar="R")
    parser.add_argument("--params", action="store_true", help="R times fewer parameters instead of MACs")
    parser.add_argument("--calibration", type=int, default=1024, help="calibration images (default: 1024)")
    parser.add_argument("--steps", type=int, default=400, help="steps of reconstruction a block (default: 400)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of transfer (default: 10)")
    parser.add_argument("--train", type=int, default=60_000, help="training images (default: all 60,000)")
    parser.add_argument("--images", type=int, default=10_000, help="test images (default: all 10,000)")
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate (default: 0.02)")
    parser.add_argument("--results", type=Path, help="the file of lines")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"), help="where unfinished work is kept")
    parser.add_argument("--table", action="store_true", help="only write the table and the picture of what is there")
    arguments = parser.parse_args()
    path = arguments.results or ROOT / "benchmarks" / "results" / f"transfer-{arguments.model}.jsonl"
    try:
        if arguments.table:
            write_table(arguments.model, read(path))
            return 0
        for ratio in arguments.ratios:
            for family in arguments.families:
                _Chain(arguments, family, ratio, path).run()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """The finished steps."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class _Chain:
    """One family at one ratio through all steps."""

    def __init__(self, arguments: argparse.Namespace, family: str, ratio: float, path: Path) -> None:
        self._arguments, self._family, self._ratio, self._path = arguments, family, ratio, path
        self._unit = "parameters" if arguments.params else "macs"
        self._key = {
            "model": arguments.model,
            "family": family,
            "unit": self._unit,
            "ratio": ratio,
            "calibration": arguments.calibration,
            "steps": arguments.steps,
            "epochs": arguments.epochs,
            "train": arguments.train,
            "rate": arguments.rate,
            "test": arguments.images,
        }
        digest = hashlib.sha256(json.dumps(self._key).encode()).hexdigest()[:12]
        self._folder = arguments.runs / f"{arguments.model}-{family}-{ratio:g}-{digest}"
        if models.facts(arguments.model) is None:
            raise UserError(f"there is no trained network {arguments.model!r}; see `edgekron models`.")
        self._teacher = graph.load(
            models.load(arguments.model), input_shape=models.NETWORKS[arguments.model].input_shape
        )

    def run(self) -> None:
        """Every step that has no line yet; hubs of finished steps are read from the folder."""
        done = {row["step"] for row in read(self._path) if row["key"] == self._key}
        for step in STEPS:
            if step in done and (self._folder / f"{step}.onnx").exists():
                continue
            start = time.perf_counter()
            hub, facts = self._step(step)
            seconds = time.perf_counter() - start
            hub.save(self._folder / f"{step}.onnx", force=True)
            if step in done:
                continue
            row = {"key": self._key, "step": step, **facts, "top1": self._top1(hub), "seconds": round(seconds, 1)}
            row |= {"date": datetime.now(UTC).isoformat(timespec="minutes"), "machine": platform.machine()}
            row["versions"] = {package: metadata.version(package) for package in PACKAGES}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{self._family} {self._ratio:g}x {step}: top-1 {row['top1']:.2f} % ({seconds:.0f} s)", flush=True)

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
            ratios = {unit: total["ratio"] for unit, total in made.report["totals"].items()}
            write_file(self._folder / f"{step}.json", json.dumps(ratios), force=True)
            return made.hub, {"ratios": ratios}
        origin = "weights" if step in ("means", "energy") else "calibrated"
        facts = {"ratios": json.loads((self._folder / f"{origin}.json").read_text())}
        before = Hub.open(self._folder / f"{'reconstructed' if step == 'transferred' else origin}.onnx")
        if step in ("means", "energy"):
            return re_estimate(before, self._teacher, self._calibration(), rescale=step == "energy"), facts
        if step == "reconstructed":
            hub, blocks = reconstruct(before, self._teacher, self._calibration(), steps=self._arguments.steps)
            return hub, {**facts, "blocks": [asdict(block) for block in blocks]}
        return self._transferred(before, facts)

    def _transferred(self, hub: Hub, facts: dict[str, Any]) -> tuple[Hub, dict[str, Any]]:
        train = datasets.load("fashion-mnist:train").subset(self._arguments.train)
        examples, _ = both(train, train.subset(1))
        rest, held_out = examples.split(0.05, 0)
        settings = Settings(
            epochs=self._arguments.epochs,
            learning_rate=self._arguments.rate,
            variants=8,
            augmentation=Augmentation(2, flip=True),
        )
        module = GraphModule(hub, normalise=True)
        few = examples.fetch(examples.rows[:512])
        begin_norms(module, [few])
        objective = KnowledgeTransfer(
            module, GraphModule(self._teacher), torch.from_numpy(few), cache=ResponseCache(len(examples.labels), 8)
        )
        with joined() as processes:
            outcome = Trainer(
                module,
                rest,
                held_out,
                settings,
                processes=processes,
                objective=objective,
                folder=self._folder / "training",
                identity=self._key,
            ).run()
        return module.to_hub(), {**facts, "best_epoch": outcome.best_epoch, "training_seconds": round(outcome.seconds)}

    def _calibration(self) -> np.ndarray:
        data = datasets.load("fashion-mnist:calibration").subset(self._arguments.calibration)
        return data.normalise(data.images)

    def _top1(self, hub: Hub) -> float:
        test = datasets.load("fashion-mnist:test").subset(self._arguments.images)
        with tempfile.TemporaryDirectory(prefix="edgekron-transfer-") as folder:
            file = Path(folder) / "network.onnx"
            export_onnx(hub, file)
            return 100 * top1(file, test.batches(100), threads=1).top1


def write_table(model: str, rows: list[dict[str, Any]]) -> None:
    """The steps as Markdown, and top-1 against what is saved as a picture."""
    if not rows:
        raise UserError(f"there is no finished step of {model}; run this without --table first.")
    lines = [
        f"# What each step wins back on {model}",
        "",
        f"`benchmarks/transfer.py {model}`; dense: {(models.facts(model) or {})['top1']:.2f} % top-1 on Fashion-MNIST.",
        "",
        f"| family | MACs | parameters | {' | '.join(STEPS)} | calibration, training images, epochs |",
        f"|---|---|---|{'---|' * (len(STEPS) + 1)}",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["key"]), []).append(row)
    for group in groups.values():
        key, found = group[0]["key"], {row["step"]: row for row in group}
        cells = [f"{found[step]['top1']:.2f}" if step in found else "" for step in STEPS]
        ratios = group[-1]["ratios"]
        lines.append(
            f"| {key['family']} | {ratios['macs']:.2f}x | {ratios['parameters']:.2f}x | {' | '.join(cells)} | "
            f"{key['calibration']}, {key['train']}, {key['epochs']} |"
        )
    lines += ["", f"![Top-1 against MACs and parameters](transfer-{model}.svg)", ""]
    write_file(ROOT / "docs" / f"transfer-{model}.md", "\n".join(lines), force=True)
    figure = Figure((9.0, 4.0), layout="constrained")
    for axes, unit in zip(figure.subplots(1, 2, sharey=True), ("macs", "parameters"), strict=True):
        for family, colour in zip(FAMILIES, COLOURS, strict=True):
            for step, mark in (("calibrated", "o"), ("reconstructed", "s"), ("transferred", "^")):
                points = [r for r in rows if r["key"]["family"] == family and r["step"] == step]
                axes.scatter(
                    [r["ratios"][unit] for r in points],
                    [r["top1"] for r in points],
                    color=colour,
                    marker=mark,
                    label=f"{family}, {step}" if points else None,
                )
        axes.set_xlabel(f"times fewer {'MACs' if unit == 'macs' else unit}")
        axes.grid(visible=True, alpha=0.3)
    figure.axes[0].set_ylabel("top-1 %")
    figure.axes[1].legend(fontsize=6, ncols=2)
    figure.savefig(ROOT / "docs" / f"transfer-{model}.svg", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
