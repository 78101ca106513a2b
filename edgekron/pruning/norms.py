"""Re-estimates the batch normalisations that stand alone in a pruned network, such as those behind an addition.

Such a normalisation stores the mean m and the variance v of a channel over the training images. Over the calibration
images, the channel has the mean a and the variance s in the original network, and a' and s' in the pruned one. The
normalised channel keeps its mean and variance with

    v' + eps = (v + eps) s' / s        m' = a' - (a - m) sqrt(s' / s)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgekron.graph.layers import layer_names
from edgekron.graph.values import required

from .channels import constant, put_constant
from .reading import images_of
from .samples import Standing

if TYPE_CHECKING:
    from edgekron.fitting.calibration import Walk
    from edgekron.graph import Hub

#: How far a variance may move: where a channel hardly varies, the ratio says nothing.
_FARTHEST = 4.0


@dataclass(frozen=True)
class _Place:
    """A place for a walk to stand: before the node that makes the value ``output``."""

    output: str


def stops(hub: Hub) -> list[str]:
    """The layers, by name, and the normalisations that can be re-estimated, by their output; in the graph's order."""
    names = layer_names(hub.model.graph)
    return [
        names[node] if node in names else str(node.outputs[0].name)
        for node in hub.model.graph
        if node in names or _is_norm(node)
    ]


def reestimate(original: Hub, pruned: Hub, output: str, standing: Standing) -> None:
    """Re-estimates the normalisation that makes the value ``output``, in place in ``pruned``."""
    old, new = (_made(hub, output) for hub in (original, pruned))
    standing.reference.advance(_Place(str(old.outputs[0].name)))
    standing.other.advance(_Place(str(new.outputs[0].name)))
    units = standing.structure.channels.of(old.inputs[0])
    before = _statistics(standing.reference, str(required(old, 0).name))
    after = _statistics(standing.other, str(required(new, 0).name))
    if units is not None:
        before = before[:, standing.structure.alive(units, standing.removed)]
    mean, variance = constant(new.inputs[3]), constant(new.inputs[4])
    if mean is None or variance is None:
        raise AssertionError("only normalisations with constants are stops")
    ratio = np.divide(after[1], before[1], out=np.ones_like(after[1]), where=before[1] > 0)
    ratio = ratio.clip(1 / _FARTHEST, _FARTHEST)
    epsilon = new.attributes.get_float("epsilon", 1e-5)
    spread = np.maximum((variance + epsilon) * ratio - epsilon, 0)
    put_constant(pruned.model, new, 3, (after[0] - (before[0] - mean) * np.sqrt(ratio)).astype(np.float32))
    put_constant(pruned.model, new, 4, spread.astype(np.float32))


def _is_norm(node: ir.Node) -> bool:
    constants = node.op_type == "BatchNormalization" and not node.domain
    return constants and all(constant(value) is not None for value in node.inputs[1:5])


def _made(hub: Hub, output: str) -> ir.Node:
    return next(node for node in hub.model.graph if node.outputs[0].name == output)


def _statistics(walk: Walk, name: str) -> np.ndarray:
    """Mean and variance [2, C] of each channel of a value."""
    sums, count = np.zeros(0), 0
    for image in images_of(walk, name):
        pixels = image.reshape(image.shape[1], -1).astype(np.float64)
        both = np.stack([pixels.sum(1), np.square(pixels).sum(1)])
        sums = both if not count else sums + both
        count += pixels.shape[1]
    mean, square = sums / max(count, 1)
    return np.stack([mean, np.maximum(square - mean * mean, 0.0)])
