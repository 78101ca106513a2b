"""Which axis of an input or output holds the channels, followed through the graph and never guessed from the rank.

Convolutions, pools and normalizations read and write [N, C, H, W]. From there the axes are followed through operators
that move them: a Transpose permutes them, a reshape splits and merges them, and everything that keeps the number of
axes keeps their meaning. So the channels of an input are those that its first convolution reads, and the channels of
an output are those that its last convolution wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from .factorized import is_factorized, kind_of

#: A name for each axis of a value: the number of an axis of an image or of an input, None where nothing is known.
Axes = tuple[int | None, ...]

CHANNELS = 1
#: The axes of an image.
IMAGE: Axes = (0, CHANNELS, 2, 3)

#: Operators whose first input and output are images [N, C, H, W] where they have four axes.
_IMAGES = {
    *("Conv", "ConvTranspose", "QLinearConv", "ConvInteger", "DeformConv", "FusedConv"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool", "MaxUnpool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
    *("DepthToSpace", "SpaceToDepth", "GridSample"),
}
_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
#: Operators whose axes have no one origin.
_MIXING = {"MatMul", "Gemm", "Einsum", "Shape", "Size", "NonZero", "NonMaxSuppression", "RoiAlign", "OneHot"}


def input_channels(graph: ir.Graph) -> dict[ir.Value, int | None]:
    """The axis of the channels of every input with four axes, counted with the batch; None where the graph does not
    say. The only input of a network that has no image operator in reach is taken for [N, C, H, W].
    """
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    found: dict[ir.Value, int | None] = {}
    for value in inputs:
        if value.shape is None or len(value.shape) != len(IMAGE):
            continue
        axis = next(_Trail(graph).read_as_channels(value), None)
        found[value] = CHANNELS if axis is None and len(inputs) == 1 else axis
    return found


def output_channels(
    graph: ir.Graph, shapes: Mapping[ir.Value, tuple[int, ...]] | None = None
) -> dict[ir.Value, int | None]:
    """The axis of the channels of every output with four axes; None where the graph does not say.

    ``shapes`` are those of values whose shape the graph does not state.
    """
    seeds = {value: axes for value, axis in input_channels(graph).items() if (axes := _ORIGINS.get(axis)) is not None}
    known = _Trail(graph, shapes).follow(seeds, anchored=True)
    ends = {value: known[value] for value in graph.outputs if len(known.get(value, ())) == len(IMAGE)}
    return {value: axes.index(CHANNELS) if axes.count(CHANNELS) == 1 else None for value, axes in ends.items()}


#: The axes of an input by the axis of its channels.
_ORIGINS: dict[int | None, Axes] = {1: IMAGE, 3: (0, 2, 3, CHANNELS)}


class _Trail:
    """The nodes of a graph, through which axes are followed."""

    def __init__(self, graph: ir.Graph, shapes: Mapping[ir.Value, tuple[int, ...]] | None = None) -> None:
        self._graph, self._shapes = graph, shapes or {}

    def read_as_channels(self, value: ir.Value) -> Iterator[int]:
        """The axes of an input that image operators read as channels, in the order of the graph."""
        known = self.follow({value: IMAGE}, anchored=False)
        for node in self._graph:
            first = node.inputs[0] if node.inputs else None
            if first is None or first not in known or not _on_images(node):
                continue
            axes = known[first]
            if len(axes) == len(IMAGE) and (axis := axes[CHANNELS]) is not None:
                yield axis

    def follow(self, seeds: Mapping[ir.Value, Axes], *, anchored: bool) -> dict[ir.Value, Axes]:
        """Every value that the axes of ``seeds`` can be followed to, with its axes.

        With ``anchored`` image operators start anew: what they write has the axes of an image.
        """
        known = dict(seeds)
        for node in self._graph:
            for value in node.outputs:
                image = anchored and value is node.outputs[0] and _on_images(node) and self._rank(value) in (None, 4)
                axes = IMAGE if image else self._through(node, value, known)
                if axes is not None:
                    known[value] = axes
        return known

    def _through(self, node: ir.Node, value: ir.Value, known: Mapping[ir.Value, Axes]) -> Axes | None:
        """The axes of an output of ``node``; None where they are not those of an input."""
        given = [known[x] for x in node.inputs if x is not None and x in known]
        first = node.inputs[0] if node.inputs else None
        if not given or node.op_type in _MIXING:
            return None
        if node.op_type == "Transpose":
            perm = node.attributes.get("perm")
            order = list(perm.as_ints()) if perm is not None else list(range(len(given[0])))[::-1]
            return tuple(given[0][a] for a in order)
        if node.op_type in _RESHAPES:
            return self._reshaped(known[first], first, value) if first is not None and first in known else None
        if node.op_type.startswith(("Reduce", "Arg")) and not node.attributes.get_int("keepdims", 1):
            return None
        rank = max(map(len, given))
        if self._rank(value) not in (None, rank):
            return None
        padded = [(None,) * (rank - len(axes)) + axes for axes in given]
        return tuple(next((a for a in of if a is not None), None) for of in zip(*padded, strict=True))

    def _reshaped(self, axes: Axes, before: ir.Value, after: ir.Value) -> Axes | None:
        """The axes behind a reshape: an axis that is split gives its name to all parts, one that is merged of several
        has the name of the first that is larger than one.
        """
        source, target = self._sizes(before), self._sizes(after)
        if source is None or target is None or len(source) != len(axes) or math.prod(source) != math.prod(target):
            return None
        found: list[int | None] = [None] * len(target)
        for old, new in segments(source, target):
            name = next((axes[a] for a in old if source[a] > 1), axes[old[0]] if old else None)
            for axis in new:
                found[axis] = name
        return tuple(found)

    def _rank(self, value: ir.Value) -> int | None:
        shape = self._shapes.get(value, value.shape)
        return None if shape is None else len(shape)

    def _sizes(self, value: ir.Value) -> tuple[int, ...] | None:
        """The sizes of a value with a large prime for the open batch; None where another one is open."""
        shape = self._shapes.get(value, value.shape)
        if shape is None:
            return None
        sizes = [d if isinstance(d, int) else (_BATCH if axis == 0 else 0) for axis, d in enumerate(shape)]
        return None if 0 in sizes else tuple(sizes)


_BATCH = 1_000_003


def _on_images(node: ir.Node) -> bool:
    return kind_of(node) == "conv" if is_factorized(node) else node.op_type in _IMAGES


def segments(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The axes that a reshape merges and splits, as the finest pairs of runs of axes with equal products of sizes.

    Axes of size one at the end belong to the last pair.
    """
    pairs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        before, after = [i], [j]
        left, right = source[i], target[j]
        while left != right:
            if left < right:
                i += 1
                before.append(i)
                left *= source[i]
            else:
                j += 1
                after.append(j)
                right *= target[j]
        i, j = i + 1, j + 1
        pairs.append((before, after))
    if not pairs:
        pairs.append(([], []))
    pairs[-1][0].extend(range(i, len(source)))
    pairs[-1][1].extend(range(j, len(target)))
    return pairs
