"""The order in which a criterion removes the channels of each group, found in one walk through the network.

================  ======================================================================================================
``qsfm-ssim``     QSFM: the map most similar to another by SSIM, as the layers that read the maps see them
``qsfm-psnr``     QSFM by PSNR
``absorb``        the channel that its readers can best do without, by least squares, weighed by how much of an error
                  in a reader arrives at the network's output
``l1``            the smallest sum of absolute weights (Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017)
``bn-scale``      the smallest standard deviation of the layer's outputs: the scale of the batch normalisation behind
                  the layer (Liu et al., *Network Slimming*, ICCV 2017), which the hub has folded into the weights
``random``        any
================  ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from edgekron.errors import UserError
from edgekron.fitting.calibration import Walk
from edgekron.processes import Progress

from .groups import ChannelStructure, Group
from .order import Order, order_of
from .reading import spread_of_outputs
from .similarity import Measure, greedy_order, map_similarity

if TYPE_CHECKING:
    from edgekron.graph import Hub, Layer

CRITERIA = ("qsfm-ssim", "qsfm-psnr", "absorb", "l1", "bn-scale", "random")
#: Those that have a similarity to compare with a threshold.
SIMILARITIES = ("qsfm-ssim", "qsfm-psnr", "absorb")
#: Those that look at weights alone.
DATA_FREE = frozenset(("l1", "random"))
#: Images whose maps are compared: a similarity needs few.
SIMILARITY_IMAGES = 64


def find_orders(
    hub: Hub,
    structure: ChannelStructure,
    criterion: str,
    data: Sequence[np.ndarray],
    *,
    only: frozenset[str] | None = None,
    costs: Sequence[str] = ("macs",),
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Order]:
    """The order of every group that can be pruned, or of those named ``only``, by the group's name.

    ``absorb`` compares the error of a removal with the share of ``costs`` that is saved. Raises ``UserError`` for a
    criterion that does not exist, or that needs images and gets none.
    """
    if criterion not in CRITERIA:
        raise UserError(f"there is no criterion {criterion!r}; there are {', '.join(CRITERIA)}.")
    if criterion not in DATA_FREE and not len(data):
        free = " or ".join(sorted(DATA_FREE))
        raise UserError(f"{criterion} compares what the layers make of images; give some (--data), or choose {free}.")
    groups = [g for g in structure.groups if g.reason is None and (only is None or g.name in only)]
    layers = {layer.name: layer for layer in hub.layers()}
    norms = {group.name: _norms(group, layers) for group in groups}
    if criterion == "l1":
        return {group.name: _by_score(group, norms[group.name]) for group in groups}
    if criterion == "random":
        rng = np.random.default_rng(0)
        return {group.name: _by_score(group, rng.permutation(len(group.units)) + 1.0) for group in groups}
    if criterion == "absorb":
        from .absorb import absorb_orders

        return absorb_orders(hub, structure, groups, data, costs=costs, progress=progress)
    few = list(_first(data, SIMILARITY_IMAGES))
    with Walk(hub, few) as walk:
        if criterion == "bn-scale":
            return _by_outputs(groups, layers, walk, progress)
        measure: Measure = "ssim" if criterion == "qsfm-ssim" else "psnr"
        return _by_maps(groups, layers, walk, measure, norms, progress)


def _first(data: Sequence[np.ndarray], images: int) -> Iterator[np.ndarray]:
    """The first batches, cut to ``images`` images."""
    for batch in data:
        if images <= 0:
            return
        yield batch[:images]
        images -= len(batch)


def _by_score(group: Group, scores: np.ndarray) -> Order:
    """The smallest first; scores are compared between groups in units of their mean."""
    places = scores.argsort(kind="stable")[:-1]
    relative = scores[places] / max(float(scores.mean()), 1e-30)
    return order_of(group, places.tolist(), (-relative).tolist(), relative.tolist())


def _norms(group: Group, layers: Mapping[str, Layer]) -> np.ndarray:
    """Sum of absolute weights of each channel over all layers of the group, each layer in units of its mean."""
    total = np.zeros(len(group.units))
    for name in group.layers:
        kernel = layers[name].kernel
        if kernel is not None:
            norms = np.abs(kernel).reshape(len(kernel), -1).sum(1, dtype=np.float64)
            total += norms[group.made[name]] / max(float(norms.mean()), 1e-30)
    return total


def _by_outputs(
    groups: Sequence[Group], layers: Mapping[str, Layer], walk: Walk, progress: Progress
) -> dict[str, Order]:
    makers = {name: group for group in groups for name in group.layers}
    totals = {group.name: np.zeros(len(group.units)) for group in groups}
    for index, (name, layer) in enumerate((n, layer) for n, layer in layers.items() if n in makers):
        progress("survey", index, len(makers))
        walk.advance(layer)
        spread = spread_of_outputs(layer, walk, seed=index)
        if spread is not None:
            totals[makers[name].name] += spread[makers[name].made[name]]
    progress("survey", len(makers), len(makers))
    return {group.name: _by_score(group, totals[group.name]) for group in groups}


def _by_maps(
    groups: Sequence[Group],
    layers: Mapping[str, Layer],
    walk: Walk,
    measure: Measure,
    norms: Mapping[str, np.ndarray],
    progress: Progress,
) -> dict[str, Order]:
    found = {group.name: _Similarities(len(group.units)) for group in groups}
    todo = [layer for name, layer in layers.items() if any(name in group.readers for group in groups)]
    for index, layer in enumerate(todo):
        progress("survey", index, len(todo))
        walk.advance(layer)
        for group in groups:
            if layer.name in group.readers:
                found[group.name].add(group, layer, walk, measure)
    progress("survey", len(todo), len(todo))
    orders = {}
    for group in groups:
        places, scores = greedy_order(*found[group.name].mean(), norms[group.name])
        orders[group.name] = order_of(group, places, scores, [-score for score in scores])
    return orders


class _Similarities:
    """The similarity of a group's maps, averaged over all values that layers read the maps from."""

    def __init__(self, count: int) -> None:
        self._total, self._seen = np.zeros((count, count)), np.zeros((count, count))
        self._alive = np.zeros(count, bool)
        self._values: set[str] = set()

    def add(self, group: Group, layer: Layer, walk: Walk, measure: Measure) -> None:
        """Adds the input of ``layer``, in front of which the walk stands, unless another layer reads it too."""
        if layer.input in self._values:
            return
        self._values.add(layer.input)
        places, columns = group.columns(layer.name)
        pieces = maps_of(layer, walk, columns)
        similarity, dead = map_similarity(pieces, measure)
        self._total[np.ix_(places, places)] += similarity
        self._seen[np.ix_(places, places)] += 1
        self._alive[places] |= ~dead

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean similarity [C, C], and which maps are zero in all values [C]."""
        return self._total / np.maximum(self._seen, 1), ~self._alive


def maps_of(layer: Layer, walk: Walk, columns: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
    """The maps [n, channels, pixels] that a layer reads at ``columns`` [channels, m], a few images at a time.

    Maps of a single pixel come all at once, so that they can be compared across the images.
    """

    def pieces() -> Iterator[np.ndarray]:
        for piece in walk.values(layer.input):
            yield piece[:, columns.reshape(-1)].reshape(len(piece), len(columns), -1)

    first = next(iter(islice(pieces(), 1)))
    if first.shape[2] > 1:
        return pieces
    return lambda: iter((np.concatenate(list(pieces())),))
