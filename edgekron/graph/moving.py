"""Arrays sent through the moves of a graph, to see where each value of an output comes from.

An array that numbers the values of every source, sent through the moves behind the sources, says for each value of the
output which value of which source it is. All arrays are those of one image: an open first axis has size 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .joins import is_move, moved_by
from .values import constant


class UnknownPlacesError(Exception):
    """Where a value comes from cannot be told: a size, or the reach of a slice, is not known."""


def sent(value: ir.Value, source: Callable[[ir.Value], np.ndarray]) -> np.ndarray:
    """The array of ``value``, by ``source`` where no move makes the value. Raises ``UnknownPlacesError``."""
    node = value.producer()
    if node is None or not is_move(node):
        return source(value)
    return move(node, value, [sent(given, source) for given in moved_by(node)])


def move(node: ir.Node, value: ir.Value, arrays: list[np.ndarray]) -> np.ndarray:
    """What the move ``node`` makes as ``value`` of the arrays of its inputs. Raises ``UnknownPlacesError``."""
    try:
        return _move(node, value, arrays)
    except (ValueError, IndexError) as error:
        raise UnknownPlacesError(f"{node.name}: {error}") from None


def sizes_of_one(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value for one image. Raises ``UnknownPlacesError`` where another size than the first is open."""
    first, *rest = _sizes(value) or (1,)
    if -1 in rest:
        raise UnknownPlacesError(f"the shape of {value.name} is not known")
    return (1 if first == -1 else first, *rest) if value.shape else ()


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """All sizes of a value, -1 for an open one."""
    if value.shape is None:
        raise UnknownPlacesError(f"the shape of {value.name} is not known")
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)


def _move(node: ir.Node, value: ir.Value, arrays: list[np.ndarray]) -> np.ndarray:
    x = arrays[0]
    attributes = node.attributes
    if node.op_type == "Concat":
        return np.concatenate(arrays, attributes.get_int("axis", 0))
    if node.op_type in ("Identity", "Cast"):
        return x
    if node.op_type == "Transpose":
        return x.transpose(attributes.get_ints("perm", tuple(reversed(range(x.ndim)))))
    if node.op_type == "Gather":
        indices = constant(node.inputs[1])
        return np.take(x, np.asarray(indices), attributes.get_int("axis", 0))
    if node.op_type == "Split":
        return _split(node, value, x)
    if node.op_type == "Slice":
        return _slice(node, x)
    first, *rest = _sizes(value) or (1,)
    # Where two sizes are open, the first is the batch of one image.
    return x.reshape(1 if -1 in rest and first == -1 else first, *rest)


def _split(node: ir.Node, value: ir.Value, x: np.ndarray) -> np.ndarray:
    axis = node.attributes.get_int("axis", 0)
    ends = np.cumsum([sizes_of_one(part)[axis] for part in node.outputs])
    if ends[-1] != x.shape[axis]:
        raise UnknownPlacesError(f"the parts of {node.name} do not add up")
    return np.split(x, ends[:-1].tolist(), axis)[node.outputs.index(value)]


def _slice(node: ir.Node, x: np.ndarray) -> np.ndarray:
    given = [constant(value) if value is not None else None for value in node.inputs[1:]]
    if any(array is None for array, value in zip(given, node.inputs[1:], strict=True) if value is not None):
        raise UnknownPlacesError(f"the reach of {node.name} is not constant")
    starts, ends, axes, steps = [*given, None, None][:4]
    if starts is None or ends is None:
        raise UnknownPlacesError(f"the reach of {node.name} is not stated")
    along = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    reach = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), strides, strict=True):
        # An end far below zero is "before the first value", which Python writes as None.
        reach[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(reach)]
