"""The error at outputs: of one value as a whole, of a join by part and channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from edgekron.compression.compressor import compress
from edgekron.fitting import OutputError, Walk
from edgekron.graph import Hub
from edgekron.graph.nodes import add_initializer
from tests.detectors import CLASSES, DETECTORS, PLAIN, Anchors, Joined, hub, images

CHANGE = Callable[[str, np.ndarray], np.ndarray]


def changed(net: Hub, change: CHANGE) -> Hub:
    """The network with other weights, by the weight's name."""
    copy = net.copy()
    for name, value in list(copy.model.graph.initializers.items()):
        if value.const_value is not None and name.endswith(".weight"):
            new = add_initializer(copy.model.graph, f"{name}.new", change(name, value.const_value.numpy()))
            for node, index in list(value.uses()):
                node.replace_input_with(index, new)
    return copy


def noisy(*parts: str, size: float) -> CHANGE:
    random = np.random.default_rng(1)

    def change(name: str, weight: np.ndarray) -> np.ndarray:
        noise = size * weight.std() * random.standard_normal(weight.shape) if name.startswith(parts) else 0
        return (weight + noise).astype(np.float32)

    return change


def outputs(net: Hub, x: np.ndarray) -> list[np.ndarray]:
    with Walk(net, [x]) as walk:
        return walk.outputs(net, len(x))


def error(net: Hub, trial: Hub, count: int = 8) -> float:
    with Walk(net, [images(count)]) as walk:
        return OutputError(net, walk, count)(trial)


@pytest.mark.parametrize("kind", PLAIN)
def test_an_output_of_one_value_counts_as_a_whole(kind: type[nn.Module]) -> None:
    """To the last bit: the plans of such networks rest on this number."""
    net = hub(kind)
    trial = changed(net, noisy("", size=0.1))
    total = 0.0
    for a, b in zip(outputs(net, images(8)), outputs(trial, images(8)), strict=True):
        mean = (a.sum(0, dtype=np.float64) / 8).astype(np.float32)
        total += float(np.square(b - a).sum()) / float(np.square(a - mean).sum())
    assert error(net, trial) == total


def test_boxes_and_scores_count_alike() -> None:
    """Boxes by channel, scores by their sum; in pixels the error of the scores would be next to nothing."""
    net = hub(Joined)
    trial = changed(net, noisy("boxes", "classes", size=0.2))
    (a,), (b,) = outputs(net, images(8)), outputs(trial, images(8))
    a, b = a.astype(np.float64), b.astype(np.float64)
    lost, held = (np.square(x).sum((0, 2, 3)) for x in (b - a, a - a.mean(0)))
    boxes, scores = (lost[:4] / held[:4]).mean(), lost[4:].sum() / held[4:].sum()
    assert error(net, trial) == pytest.approx(boxes + scores, rel=1e-5)
    assert 0.2 < boxes / scores < 5
    assert lost[4:].sum() / held.sum() < 1e-4


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("count", [1, 8])
def test_lost_scores_are_seen(kind: type[nn.Module], count: int) -> None:
    """Scores without their weights are one number each; the error is that of an output without any information.

    Of one image, deviations are from the mean of the channel.
    """
    net = hub(kind)
    of = "heads" if kind is Anchors else "classes"
    trial = changed(net, lambda name, weight: weight * (not name.startswith(of)))
    found = error(net, trial, count)
    assert 0.5 < found < 50


def test_a_constant_channel_does_not_rule() -> None:
    """A box channel without weights: an error of a hundredth of its value is a small one, not one over nothing."""
    whole = hub(Joined)

    def without(name: str, weight: np.ndarray) -> np.ndarray:
        return weight * np.arange(4).astype(bool)[:, None, None, None] if name.startswith("boxes") else weight

    net = changed(whole, without)

    def shifted(name: str, weight: np.ndarray) -> np.ndarray:
        return (
            weight + 1e-4 * np.float32(np.arange(4) == 0)[:, None, None, None] if name.startswith("boxes") else weight
        )

    assert error(net, changed(net, shifted)) < 1


def test_compression_keeps_boxes_and_scores() -> None:
    """Half the MACs: the error of the scores is of the order of that of the boxes."""
    net, x = hub(Joined), images(24)
    small = compress(net, model="joined", ratios={"macs": 1.5}, method="low-rank", data=[x]).hub
    (a,), (b,) = outputs(net, x), outputs(small, x)
    lost, held = (np.square(v).sum((0, 2, 3)) for v in (b - a, a - a.mean(0)))
    boxes, scores = lost[:4].sum() / held[:4].sum(), lost[4:].sum() / held[4:].sum()
    assert scores < 4 * boxes
    assert scores < 0.3
    assert a.shape[1] == 4 + CLASSES
