"""The criterion ``absorb``: the channel that its readers can best do without goes first (see ``elimination``).

An error in a layer counts by its weight: how much the layer's errors change the network's output. For the weight, half
of the group's channels are removed from the layer, the others take over their part, and the changed layer runs through
the rest of the network. The weight is the error at the output over the error at the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekron.fitting.calibration import Walk, patches_of
from edgekron.fitting.moments import MomentSums
from edgekron.fitting.output_error import OutputError
from edgekron.fitting.sampled import SampledMoments, SampledSums
from edgekron.memory import give_back
from edgekron.processes import Progress

from .elimination import DIMENSIONS, Elimination, Reader, SampledElimination, elimination_order
from .groups import ChannelStructure, Group
from .order import Order, order_of
from .reading import images_of, outputs_of, patches_per_image
from .weights import write_layer

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

#: Images on which the weight of a layer is measured, and the share of a group's channels that its trial removes.
PROBE_IMAGES, TRIAL = 128, 0.5
#: Columns above which a layer is known by rows, the elements of all rows, and how many rows there are at least.
WIDE, SIZE, LEAST_ROWS = 2048, 2**22, 64


@dataclass(frozen=True)
class _Columns:
    """A layer's inputs as columns: their moments [d, d], or those of rows, and means [d], and its weights [F', d].

    ``variance`` is that of the outputs, ``taps`` the number of columns of a channel. In a layer with many inputs a
    channel is one column, seen through the window's middle, and F' counts the taps of the window as outputs.
    """

    moments: np.ndarray | SampledMoments
    mean: np.ndarray
    weights: np.ndarray
    variance: float
    taps: int

    def blocks(self, columns: np.ndarray) -> np.ndarray:
        """The columns [n, b] of channels that stand at ``columns`` [n, m] of the layer's inputs."""
        each = columns[:, :, None] * self.taps + np.arange(self.taps)
        return np.asarray(each.reshape(len(columns), -1))

    def elimination(self, blocks: np.ndarray, places: np.ndarray, scale: float) -> Elimination | SampledElimination:
        """The layer while the channels at ``places`` of a group, which are its ``blocks`` of columns, are removed."""
        if isinstance(self.moments, SampledMoments):
            rows, level = self.moments.x[0].numpy(), float(self.moments.level)
            return SampledElimination(rows, level, self.weights, blocks, places, scale)
        return Elimination(self.moments, self.weights, blocks, places, scale)


def absorb_orders(
    hub: Hub,
    structure: ChannelStructure,
    groups: Sequence[Group],
    data: Sequence[np.ndarray],
    *,
    costs: Sequence[str],
    progress: Progress,
) -> dict[str, Order]:
    """The order of each group; a price is an error at the network's output over the share of ``costs`` it saves."""
    orders: dict[str, Order] = {}
    readers: dict[str, list[Reader]] = {group.name: [] for group in groups}
    waiting = {group.name: set(group.readers) for group in groups}
    layers = [layer for layer in hub.layers() if any(layer.name in group.readers for group in groups)]
    with Walk(hub, data) as walk:
        output_error = OutputError(hub, walk, PROBE_IMAGES)
        for index, layer in enumerate(layers):
            progress("survey", index, len(layers))
            walk.advance(layer)
            columns = _columns(layer, walk, index)
            for group in groups:
                if layer.name not in group.readers:
                    continue
                places, inputs = group.columns(layer.name)
                blocks = columns.blocks(inputs)
                scale = _weight(hub, layer, columns, blocks, output_error) / columns.variance
                readers[group.name].append(columns.elimination(blocks, places, scale))
                waiting[group.name].discard(layer.name)
                if not waiting[group.name]:
                    orders[group.name] = _order(structure, group, readers.pop(group.name), costs)
            del columns
            give_back()
    progress("survey", len(layers), len(layers))
    return orders


def _order(structure: ChannelStructure, group: Group, readers: Sequence[Reader], costs: Sequence[str]) -> Order:
    count = len(group.units)
    places, added = elimination_order(readers, count, count - 1)
    whole, without = structure.costs(set()), structure.costs({int(group.units[0])})
    saved = sum((whole[cost] - without[cost]) / whole[cost] for cost in costs) / len(costs)
    return order_of(group, places, (1 - np.cumsum(added)).tolist(), (np.array(added) / max(saved, 1e-12)).tolist())


def _columns(layer: Layer, walk: Walk, seed: int) -> _Columns:
    f, c, h, w = layer.kernel_shape
    taps, middle = h * w, (h // 2) * w + w // 2
    narrow = c * taps <= DIMENSIONS
    width = c * taps if narrow else c
    rows = max(LEAST_ROWS, SIZE // width)
    total = MomentSums(1, width, f) if width <= WIDE else SampledSums(1, width, f, rows)
    count = patches_per_image(layer, walk)
    for index, image in enumerate(images_of(walk, layer.input)):
        x = patches_of(layer, image, count, np.random.default_rng((seed, index)))
        seen = x if narrow else x.reshape(len(x), 1, c, taps)[..., middle]
        total.add(seen, outputs_of(layer, x), index)
    moments = total.finish()
    kernel = np.asarray(layer.kernel)
    weights = kernel.reshape(f, -1) if narrow else kernel.reshape(f, c, taps).transpose(0, 2, 1).reshape(f * taps, c)
    seen_as = moments if isinstance(moments, SampledMoments) else moments.xx[0].numpy()
    return _Columns(seen_as, moments.mean_x[0].numpy(), weights, max(moments.yy, 1e-30), taps if narrow else 1)


def _weight(hub: Hub, layer: Layer, columns: _Columns, blocks: np.ndarray, output_error: OutputError) -> float:
    """Relative squared error at the network's output for each unit of relative squared error in this layer."""
    count = len(blocks)
    trial = columns.elimination(blocks, np.arange(count), 1 / columns.variance)
    _, added = elimination_order([trial], count, max(1, int(TRIAL * count)))
    f, c, h, w = layer.kernel_shape
    weights = trial.weights
    lost = ((columns.weights - weights) @ columns.mean).reshape(f, -1).sum(1)
    if len(weights) > f:
        weights = weights.reshape(f, h * w, c).transpose(0, 2, 1)
    bias = (0 if layer.bias is None else layer.bias) + lost
    changed = hub.copy()
    write_layer(changed, changed.layer(layer.name), weights.reshape(f, c, h, w), bias)
    return output_error(changed) / max(sum(added), 1e-12)
