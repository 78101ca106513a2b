"""The parts of outputs that are joined from several values: which part each value of an output belongs to.

Every source of a join (see ``edgekron.graph.joins``) is a part. Within a part, values belong to channels. Which axis
is that of channels is followed through the graph: back through moves and through operators on each value alone to the
layer, whose own axis is known. Parts with no such axis have one channel.

A part is a probability where its values come from a Sigmoid, HardSigmoid or Softmax, or are products, roots or maxima
of probabilities.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from .factorized import is_factorized, read_node
from .joins import ELEMENTWISE, Join, is_move, joins, moved_by, readable
from .layers import layer_names
from .moving import UnknownPlacesError, move, sent, sizes_of_one
from .passes.known_sizes import know_sizes
from .values import constant

#: Operators whose output has its channels on axis 1.
_CHANNELS_FIRST = {
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalMaxPool",
    "InstanceNormalization", "LpPool", "MaxPool", "Resize", "SpaceToDepth",
}  # fmt: skip
_PROBABILITIES = {"HardSigmoid", "Sigmoid", "Softmax"}
#: Operators that make probabilities of probabilities alone.
_KEEP_PROBABILITY = {"Max", "MaxPool", "Min", "Mul", "ReduceMax", "Sqrt"}


@dataclass(frozen=True)
class OutputPart:
    """A part of a joined output.

    ``name`` is for readers: the layer that makes the part, or the value. ``region`` says where the part lies, such as
    "[:, 4:10]", and is empty for a part that is no block. ``places`` [k] are the numbers of the part's values among the
    values of the output for one image, and ``channels`` [k] the number of the channel of each, from 0.
    """

    name: str
    value: str
    region: str
    probability: bool
    places: np.ndarray
    channels: np.ndarray

    @property
    def title(self) -> str:
        """Name and region."""
        return f"{self.name} {self.region}".strip()


@dataclass(frozen=True)
class JoinedOutput:
    """An output with two or more ``parts``; ``shape`` is that of the output for one image, the first axis included."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[OutputPart, ...]

    def images(self, array: np.ndarray) -> np.ndarray | None:
        """The values [n, k] of n images; None for an array of another shape, whose parts are not known."""
        rows, *rest = self.shape
        if list(array.shape[1:]) != rest or len(array) % rows:
            return None
        return array.reshape(len(array) // rows, -1) if array.size else array.reshape(0, int(np.prod(self.shape)))


def joined_outputs(graph: ir.Graph) -> dict[str, JoinedOutput]:
    """The outputs with two or more parts by name. An output whose places cannot be told is left out, as one whole."""
    found: dict[str, JoinedOutput] = {}
    size = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else None
    names = {node.outputs[0]: name for node, name in layer_names(graph).items()}
    for join in joins(graph):
        try:
            one = _Parts(join, names).find(size if isinstance(size, int) else 1)
        except UnknownPlacesError:
            continue
        if len(one.parts) > 1:
            found[one.name] = one
    return found


def joined_in_file(proto: onnx.ModelProto) -> dict[str, JoinedOutput]:
    """The same of an ONNX file, as far as the sizes of its input are known; open batches are those of one image."""
    model = ir.serde.deserialize_model(proto)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if not joins(model.graph):
        return {}
    for value in model.graph.inputs:
        sizes = list(value.shape or ())
        value.shape = ir.Shape([size if index or isinstance(size, int) else 1 for index, size in enumerate(sizes)])
    first = list(model.graph.inputs[0].shape or ())
    know_sizes(
        model, [size if isinstance(size, int) else str(size.value or f"axis{i}") for i, size in enumerate(first)]
    )
    return joined_outputs(model.graph)


class _Parts:
    """Numbers the values of a join's sources, and follows the numbers to the output."""

    def __init__(self, join: Join, names: dict[ir.Value, str]) -> None:
        self._join, self._names = join, names
        self._first: dict[ir.Value, int] = {}
        self._count = 0
        self._channels = _Channels()

    def find(self, batch: int) -> JoinedOutput:
        """All parts, in the order of their first values. Raises ``UnknownPlacesError``.

        ``batch`` is the number of images that the graph is fixed to, 1 for any.
        """
        origin = sent(self._join.output, self._numbered)
        if batch > 1 and len(origin) == batch:
            origin = origin[:1]
        flat = origin.ravel()
        parts = []
        for source, first in self._first.items():
            inside = (flat >= first) & (flat < first + int(np.prod(sizes_of_one(source))))
            places = np.flatnonzero(inside)
            if source.const_value is None and len(places):
                numbers = self._channels.of(source).ravel()[flat[places] - first]
                channels = np.unique(numbers, return_inverse=True)[1].ravel()
                name = self._names.get(source, readable(source))
                region = _region(inside.reshape(origin.shape))
                parts.append(OutputPart(name, str(source.name), region, _is_probability(source), places, channels))
        parts.sort(key=lambda part: int(part.places[0]))
        return JoinedOutput(str(self._join.output.name), origin.shape, tuple(parts))

    def _numbered(self, source: ir.Value) -> np.ndarray:
        sizes = sizes_of_one(source)
        size = int(np.prod(sizes))
        if source not in self._first:
            self._first[source] = self._count
            self._count += size
        first = self._first[source]
        return np.arange(first, first + size).reshape(sizes)


class _Channels:
    """Numbers the channels of values; channels of different layers have different numbers."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, np.ndarray | None] = {}
        self._count = 0

    def of(self, value: ir.Value) -> np.ndarray:
        """The number of the channel of each value, in the shape of ``value``; one number where no channels are known.

        Raises ``UnknownPlacesError`` for a value of unknown shape.
        """
        found = self._find(value)
        return np.zeros(sizes_of_one(value), np.int64) if found is None else found

    def _find(self, value: ir.Value) -> np.ndarray | None:
        if value not in self._known:
            self._known[value] = None
            with suppress(UnknownPlacesError):
                self._known[value] = self._follow(value)
        return self._known[value]

    def _follow(self, value: ir.Value) -> np.ndarray | None:
        node = value.producer()
        if value.const_value is not None:
            # A constant between computed values: a channel of its own.
            return self._numbered(value, None)
        if node is None:
            return None
        if (axis := _channel_axis(node)) is not None:
            return self._numbered(value, axis)
        if is_move(node):
            return move(node, value, [self.of(given) for given in moved_by(node)])
        if node.op_type not in ELEMENTWISE or node.domain not in ("", "ai.onnx"):
            return None
        sizes = sizes_of_one(value)
        for given in node.inputs:
            found = None if given is None or given.const_value is not None else self._find(given)
            if found is not None and found.shape == sizes:
                return found
        return None

    def _numbered(self, value: ir.Value, axis: int | None) -> np.ndarray:
        sizes = sizes_of_one(value)
        count = 1 if axis is None else sizes[axis]
        numbers = np.arange(self._count, self._count + count)
        self._count += count
        if axis is None:
            return np.full(sizes, numbers[0])
        return np.broadcast_to(numbers.reshape([-1 if i == axis % len(sizes) else 1 for i in range(len(sizes))]), sizes)


def _channel_axis(node: ir.Node) -> int | None:
    """The axis of channels in the output of a layer, or of an operator that needs channels there."""
    if is_factorized(node):
        return 1 if read_node(node).kind == "conv" else -1
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _CHANNELS_FIRST:
        return 1
    by_constant = node.op_type == "MatMul" and constant(node.inputs[1]) is not None
    return -1 if node.op_type == "Gemm" or by_constant else None


def _is_probability(value: ir.Value) -> bool:
    """Whether every value lies between 0 and 1 because a Sigmoid, HardSigmoid or Softmax made it so."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _PROBABILITIES:
        return True
    if is_move(node):
        given = [x for x in moved_by(node) if x.const_value is None]
    elif node.op_type in _KEEP_PROBABILITY:
        places = node.inputs[:1] if node.op_type in ("MaxPool", "ReduceMax") else node.inputs
        given = [x for x in places if x is not None]
    else:
        return False
    return all(map(_is_probability, given))


def _region(inside: np.ndarray) -> str:
    """The block of the output that is ``inside``, such as "[:, 4:10]"; empty where it is no block."""
    spans = []
    for axis in range(inside.ndim):
        held = np.flatnonzero(inside.any(tuple(i for i in range(inside.ndim) if i != axis)))
        spans.append((int(held[0]), int(held[-1]) + 1))
    if int(np.prod([end - start for start, end in spans])) != int(inside.sum()):
        return ""
    shown = [
        ":" if (start, end) == (0, size) else f"{start}:{end}"
        for (start, end), size in zip(spans, inside.shape, strict=True)
    ]
    while shown and shown[-1] == ":":
        shown.pop()
    return f"[{', '.join(shown)}]" if shown else ""
