"""The order in which the axes of an ONNX value lie in the file.

ONNX writes feature maps as [N, C, H, W]; TFLite's convolutions want [N, H, W, C]. Instead of transposing around each
operator, every value carries its ``order``: axis i of the tensor in the file is axis ``order[i]`` of the ONNX value. A
transpose then only renames axes and costs nothing, a reshape keeps the order if possible, and data moves only if an
operator insists on an order. Axes of size one move freely, so that [N, C, 1, 1] is [N, 1, 1, C] by a reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekron.graph.channels import segments

from .program import Program, Shape, Tensor

Order = tuple[int, ...]
NHWC: Order = (0, 2, 3, 1)


def standard(rank: int) -> Order:
    """The order that operators like: NHWC for feature maps, as in ONNX for everything else."""
    return NHWC if rank == 4 else tuple(range(rank))


#: Layouts of images in a file: channels behind the pixels, as runtimes compute, or before them, as in ONNX.
LAYOUTS = ("nhwc", "nchw")
DEFAULT_LAYOUT = "nhwc"
#: The word for axes that are no image's.
PLAIN = "plain"
_WORDS = {1: "NCHW", 3: "NHWC"}


@dataclass(frozen=True)
class End:
    """The axes of an input or output: in the file and in the source, "NCHW", "NHWC" or, unless images, "plain"."""

    file: str
    source: str

    @classmethod
    def of(cls, channels: int | None, layout: str) -> End:
        """An image goes to ``layout``; a value whose ``channels`` are no axis of an image stays as it is."""
        source = _WORDS.get(channels or 0, PLAIN)
        return cls(PLAIN if source == PLAIN else layout.upper(), source)

    def order(self, rank: int) -> Order:
        """The order of the axes in the file, for a value with so many axes."""
        if self.source == PLAIN or rank != len(self.source):
            return tuple(range(rank))
        return tuple(map(self.source.index, self.file))


#: What runtimes take an input or output with four axes for where the file says nothing.
USUAL = End("NHWC", "NCHW")


@dataclass(frozen=True)
class Value:
    """An ONNX value in the file: ``tensor`` has the axes of the ONNX value in ``order``."""

    tensor: Tensor
    order: Order

    @property
    def shape(self) -> Shape:
        """The shape in ONNX."""
        return tuple(self.tensor.shape[self.order.index(a)] for a in range(len(self.order)))

    def axis(self, axis: int) -> int:
        """The place of an ONNX axis in the tensor."""
        return self.order.index(axis % len(self.order))


def arrange(program: Program, value: Value, order: Order) -> Value:
    """The same value in another order, by a transpose or, if only axes of size one move, by a reshape."""
    if value.order == order:
        return value
    moves = [value.order.index(a) for a in order]
    return Value(program.transpose(value.tensor, moves, f"{value.tensor.name}/{_letters(order)}"), order)


def _letters(order: Order) -> str:
    return "".join("nchw"[a] for a in order) if len(order) == 4 else "x" + "".join(map(str, order))


def arrange_constant(array: np.ndarray, order: Order) -> np.ndarray:
    """A constant for an elementwise operator on values in ``order``, with which it broadcasts as in ONNX."""
    full = array.reshape((1,) * (len(order) - array.ndim) + array.shape).transpose(order)
    while full.ndim > 1 and full.shape[0] == 1:
        full = full[0]
    return np.ascontiguousarray(full)


def free(value: Value, order: Order) -> bool:
    """Whether the value can be seen in ``order`` without moving data."""
    shape = value.shape
    return [a for a in value.order if shape[a] > 1] == [a for a in order if shape[a] > 1]


def reshape(program: Program, value: Value, shape: Sequence[int], name: str) -> Value:
    """ONNX's reshape; data moves only to merge axes that are not neighbours in the file."""
    source, target = value.shape, tuple(int(n) for n in shape)
    pairs = segments(source, target)

    def place(pair: tuple[list[int], list[int]]) -> int:
        return min((value.order.index(a) for a in pair[0] if source[a] > 1), default=-1)

    pairs.sort(key=place)
    needed = tuple(a for before, _ in pairs for a in before)
    result = tuple(a for _, after in pairs for a in after)
    if not free(value, needed):
        value = arrange(program, value, needed)
    reshaped = Value(Tensor(name, tuple(target[a] for a in result)), result)
    if free(reshaped, standard(len(target))):
        result = standard(len(target))
    return Value(program.reshape(value.tensor, [target[a] for a in result], name), result)
