"""Does the ordering of GKPD's paper hold? ResNet-32 at 5x fewer parameters by four families, the same short training.

    python benchmarks/ordering.py [--epochs 2] [--output benchmarks/results/ordering.json]

The paper (Hameed et al., AAAI 2022, table 1, CIFAR-10): Kronecker 91.52, tensor ring 90.6, tensor train 88.3, Tucker
87.7. Here each family is fitted to 2,048 calibration images (no labels), evaluated, trained with labels for a few
epochs of Fashion-MNIST with a cosine schedule, and evaluated again. Every method is a line of its own in the record,
written when it is done, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from edgekron import models
from edgekron.compression.compressor import compress
from edgekron.graph import load
from edgekron.models import datasets
from edgekron.models.train import Recipe, both
from edgekron.modules.factorize import factorize_module
from edgekron.training import Augmentation, Trainer, TrainingSettings, joined

NETWORK, RATIO = "resnet32", 5.0
#: Family and the paper's top-1 for it.
METHODS = {"kronecker": 91.52, "tr": 90.6, "tt": 88.3, "tucker": 87.7}
RATE, BATCH = 0.02, 128


def compressed(method: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network with 5x fewer parameters in its layers, fitted to the calibration images."""
    module = models.load(NETWORK)
    data = [x for x, _ in datasets.load("fashion-mnist:calibration").subset(2048).batches(32)]
    hub = load(module, input_shape=(1, 28, 28))
    result = compress(hub, model=NETWORK, ratios={"parameters": RATIO}, data=data, method=method)
    return factorize_module(module, result.hub), result.report["totals"]


def trained(model: nn.Module, epochs: int) -> tuple[float, float]:
    """Top-1 on the test images before and after SGD with the augmentation of the network's own recipe and a cosine from
    ``RATE`` to zero.
    """
    recipe = Recipe.read(NETWORK)
    settings = TrainingSettings(
        epochs=epochs,
        batch=BATCH,
        learning_rate=RATE,
        warmup_epochs=epochs / 20,
        label_smoothing=recipe.label_smoothing,
        ema=0.0,
        clip=1.0,
        keep_last=True,
        augmentation=Augmentation(recipe.crop_padding, flip=True, erase=recipe.erase),
    )
    examples, test = both(datasets.load("fashion-mnist:train"), datasets.load("fashion-mnist:test"))
    with joined() as processes:
        outcome = Trainer(model, examples, test, settings, processes=processes).run()
    return outcome.before.top1 or 0.0, outcome.best.top1 or 0.0


def main() -> None:
    """Measures what the record lacks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ordering.json"))
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    if arguments.output.exists():
        rows = json.loads(arguments.output.read_text())["methods"]
    facts = models.facts(NETWORK)
    if facts is None:
        raise SystemExit(f"{NETWORK} is not trained; run python -m edgekron.models.train {NETWORK}")
    for method, paper in METHODS.items():
        if method in rows:
            continue
        start = time.perf_counter()
        model, totals = compressed(method)
        fitted = time.perf_counter()
        before, after = trained(model, arguments.epochs)
        rows[method] = {
            "parameter_ratio": totals["parameters"]["ratio"],
            "mac_ratio": totals["macs"]["ratio"],
            "top1_calibrated": before,
            "top1_trained": after,
            "top1_paper_cifar10": paper,
            "seconds_compress": fitted - start,
            "seconds_train": time.perf_counter() - fitted,
        }
        print(method, json.dumps(rows[method]), flush=True)
        record = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("edgekron", "torch", "onnxruntime")},
            "network": NETWORK,
            "top1_dense": facts["top1"],
            "epochs": arguments.epochs,
            "methods": rows,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
