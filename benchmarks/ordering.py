"""Does the ordering of GKPD's paper hold? ResNet-32 at 5x fewer parameters by four families, the same short training.

    python -m benchmarks.ordering [--epochs 2]

The paper (Hameed et al., AAAI 2022, table 1, CIFAR-10): Kronecker 91.52, tensor ring 90.6, tensor train 88.3, Tucker
87.7. Here each family is fitted to 2,048 calibration images (no labels), evaluated, trained with labels for a few
epochs of Fashion-MNIST with a cosine schedule, and evaluated again. Each method enters the record ``ordering`` as soon
as it is measured, and an interrupted run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from torch import nn

from benchmarks.common.harness import Experiment, add_options
from benchmarks.common.networks import TEST, TRAIN, calibration, known_top1, ratios, trained
from benchmarks.common.record import Place, Record, Row, machine, made
from edgekron.compression.compressor import compress
from edgekron.models import datasets
from edgekron.models.train import Recipe, both
from edgekron.modules.factorize import factorize_module
from edgekron.training import Augmentation, Settings, Trainer, joined

NETWORK, RATIO = "resnet32", 5.0
#: Family and the paper's top-1 for it.
METHODS = {"kronecker": 91.52, "tr": 90.6, "tt": 88.3, "tucker": 87.7}
RATE, BATCH = 0.02, 128


def compressed(method: str) -> tuple[nn.Module, dict[str, float]]:
    """The network with 5x fewer parameters in its layers, fitted to the calibration images, and its ratios."""
    module, hub = trained(NETWORK)
    result = compress(hub, model=NETWORK, ratios={"parameters": RATIO}, data=calibration(2048), method=method)
    return factorize_module(module, result.hub), ratios(hub, result.hub)


def retrained(model: nn.Module, epochs: int) -> tuple[float, float]:
    """Top-1 on the test images before and after SGD with the augmentation of the network's own recipe and a cosine from
    ``RATE`` to zero.
    """
    recipe = Recipe.read(NETWORK)
    settings = Settings(
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
    examples, test = both(datasets.load(TRAIN), datasets.load(TEST))
    with joined() as processes:
        outcome = Trainer(model, examples, test, settings, processes=processes).run()
    return outcome.before.top1 or 0.0, outcome.best.top1 or 0.0


def options(parser: argparse.ArgumentParser) -> None:
    """How long each network is trained."""
    add_options(parser, "epochs", model=False, epochs=2)


def measure(arguments: argparse.Namespace) -> Record:
    """Every method that the record lacks."""
    place = Place("ordering", arguments.output)
    rows = place.earlier("methods")
    for method in METHODS:
        if method in rows:
            continue
        rows[method] = row_of(method, arguments.epochs)
        print(method, json.dumps(rows[method]), flush=True)
        place.write(
            made("torch", "onnxruntime")
            | {
                "machine": machine(),
                "network": NETWORK,
                "top1_dense": known_top1(NETWORK),
                "epochs": arguments.epochs,
                "methods": rows,
            }
        )
    return place.read()


def row_of(method: str, epochs: int) -> Row:
    """What one method comes to, fitted and trained, and how long both take."""
    start = time.perf_counter()
    model, fewer = compressed(method)
    fitted = time.perf_counter()
    before, after = retrained(model, epochs)
    return {
        "parameter_ratio": fewer["parameters"],
        "mac_ratio": fewer["macs"],
        "top1_calibrated": before,
        "top1_trained": after,
        "top1_paper_cifar10": METHODS[method],
        "seconds_compress": fitted - start,
        "seconds_train": time.perf_counter() - fitted,
    }


EXPERIMENT = Experiment("ordering", __doc__, "ordering", measure, options)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
