"""The trained networks that are bundled, and their images."""

from __future__ import annotations

import numpy as np
from torch import nn

from edgekron import graph, models
from edgekron.errors import UserError
from edgekron.graph import Hub
from edgekron.graph.cost import cost
from edgekron.models import datasets

CALIBRATION, TEST, TRAIN = "fashion-mnist:calibration", "fashion-mnist:test", "fashion-mnist:train"


def trained(name: str) -> tuple[nn.Module, Hub]:
    """A bundled trained network and its hub. Raises ``UserError`` for any other name."""
    known_top1(name)
    module = models.load(name)
    return module, hub_of(name, module)


def known_top1(name: str) -> float:
    """Top-1 in percent of a bundled trained network, as written beside its checkpoint. Raises ``UserError`` as
    ``trained`` does.
    """
    facts = models.facts(name)
    if facts is None:
        raise UserError(f"there is no trained network {name!r}; see `edgekron models`.")
    return float(facts["top1"])


def hub_of(name: str, module: nn.Module) -> Hub:
    """The hub of ``module``, which takes the images of the bundled network ``name``."""
    return graph.load(module.eval(), input_shape=models.NETWORKS[name].input_shape)


def calibration(count: int, batch: int = 32) -> list[np.ndarray]:
    """The first ``count`` bundled calibration images in batches, float32 [n, 1, 28, 28]."""
    return [images for images, _ in datasets.load(CALIBRATION).subset(count).batches(batch)]


def costs(hub: Hub) -> dict[str, int]:
    """MACs for one image and weights of all layers of a hub."""
    found = [cost(layer) for layer in hub.layers()]
    return {unit: sum(one[unit] for one in found) for unit in ("macs", "parameters")}


def ratios(before: Hub, after: Hub) -> dict[str, float]:
    """How many times fewer MACs and weights ``after`` has."""
    first, second = costs(before), costs(after)
    return {unit: first[unit] / second[unit] for unit in first}


def taken(count: int, data: str) -> str:
    """How a record names the first ``count`` images of a data set, or all where it has fewer."""
    return f"{len(datasets.load(data).subset(count))} images of {data}"
