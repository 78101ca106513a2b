"""Spells nodes of a newer version of the standard's operators as an older version does.

================  =======  ============================================================================
``Split``         18       ``num_outputs``: the sizes of the parts as an input
``Pad``           18       ``axes``: pads of zero for all other axes
``Resize``        18       ``axes``: factors of one, or the sizes as they are, for all other axes
``GridSample``    20       ``linear`` is ``bilinear``, ``cubic`` is ``bicubic``
any               any      an attribute that the older version lacks goes, if its value is the default
================  =======  ============================================================================

A node that has no spelling with the same meaning is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MODES = {b"linear": b"bilinear", b"cubic": b"bicubic"}


class RespellError(ValueError):
    """A node that the older version cannot write: "node N is O, whose A cannot be written"."""


def respell(proto: onnx.ModelProto, opset: int, target: int) -> None:
    """Respells every node of ``proto``, in place; shapes must be inferred. Raises ``RespellError``."""
    context = _Context(proto)
    for node in every_node(proto.graph):
        since, change = _CHANGES.get(node.op_type, (0, None))
        if node.domain:
            continue
        if change is not None and target < since <= opset:
            change(node, context)
        _drop_defaults(node, opset, target)


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, those of graphs inside it included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from every_node(inner)


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or that of its first result."""
    return str(node.name or (node.output[0] if node.output else node.op_type))


class _Context:
    """The constants and sizes of the main graph, and a place for new constants."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = proto.graph
        self._constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        for node in every_node(proto.graph):
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        values = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}

    def constant(self, name: str) -> np.ndarray | None:
        """A constant's value."""
        return numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def sizes(self, name: str) -> list[int | None] | None:
        """The sizes of a value; None where they are not known."""
        if name not in self._types or not self._types[name].HasField("shape"):
            return None
        return [d.dim_value if d.HasField("dim_value") else None for d in self._types[name].shape.dim]

    def add(self, stem: str, array: np.ndarray) -> str:
        """The name of a new constant."""
        name, count = stem, 1
        while name in self._constants or name in self._types:
            count += 1
            name = f"{stem}_{count}"
        tensor = numpy_helper.from_array(array, name)
        self.graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name


def _split(node: onnx.NodeProto, context: _Context) -> None:
    attributes = _attributes(node)
    if "num_outputs" not in attributes:
        return
    sizes = context.sizes(node.input[0])
    axis = attributes.get("axis", 0)
    size = sizes[axis] if sizes is not None and -len(sizes) <= axis < len(sizes) else None
    if size is None:
        raise _refused(node, "num_outputs, along an axis of unknown size,")
    part = -(-size // attributes["num_outputs"])
    parts = [min(part, size - start) for start in range(0, size, part)]
    node.input.append(context.add(f"{node.output[0]}.split", np.array(parts, np.int64)))
    _remove(node, "num_outputs")


def _pad(node: onnx.NodeProto, context: _Context) -> None:
    if _attributes(node).get("mode") == b"wrap":
        raise _refused(node, "mode wrap")
    if len(node.input) < 4 or not node.input[3]:
        return
    axes, pads = context.constant(node.input[3]), context.constant(node.input[1])
    sizes = context.sizes(node.input[0])
    if axes is None or pads is None or sizes is None:
        raise _refused(node, "axes, which are computed,")
    full = np.zeros((2, len(sizes)), np.int64)
    full[:, axes] = pads.reshape(2, -1)
    node.input[1] = context.add(f"{node.output[0]}.pads", full.reshape(-1))
    del node.input[3]
    while node.input and not node.input[-1]:
        del node.input[-1]


def _resize(node: onnx.NodeProto, context: _Context) -> None:
    axes, sizes = _attributes(node).get("axes"), context.sizes(node.input[0])
    if axes is None:
        return
    place = next((i for i in (2, 3) if len(node.input) > i and node.input[i]), 2)
    given = context.constant(node.input[place]) if len(node.input) > place else None
    if given is None or sizes is None or (len(node.input) > 1 and node.input[1]):
        raise _refused(node, "axes, with scales or sizes that are computed, or a region,")
    full: list[Any] = [1.0] * len(sizes) if place == 2 else list(sizes)
    for axis, value in zip(axes, given, strict=True):
        full[axis] = value
    if None in full:
        raise _refused(node, "axes, with other axes of unknown size,")
    node.input[place] = context.add(f"{node.output[0]}.resize", np.array(full, given.dtype))
    _remove(node, "axes")


def _grid_sample(node: onnx.NodeProto, context: _Context) -> None:
    sizes = context.sizes(node.input[0])
    if sizes is not None and len(sizes) != 4:
        raise _refused(node, f"input of {len(sizes)} axes")
    for attribute in node.attribute:
        if attribute.name == "mode":
            attribute.s = _MODES.get(attribute.s, attribute.s)


_CHANGES: dict[str, tuple[int, Callable[[onnx.NodeProto, _Context], None]]] = {
    "Split": (18, _split),
    "Pad": (18, _pad),
    "Resize": (18, _resize),
    "GridSample": (20, _grid_sample),
}


def _drop_defaults(node: onnx.NodeProto, opset: int, target: int) -> None:
    """Removes attributes that ``target`` lacks. Raises ``RespellError`` for one that is not at its default."""
    if not defs.has(node.op_type):
        return
    newer, older = (defs.get_schema(node.op_type, version).attributes for version in (opset, target))
    for name, value in _attributes(node).items():
        if name in older or name not in newer:
            continue
        default = newer[name].default_value
        plain = helper.get_attribute_value(default) if default.name else None
        if value != plain and not (name == "dilations" and set(value) == {1}):
            raise _refused(node, f"{name} {value.decode() if isinstance(value, bytes) else value}")
        _remove(node, name)
    if _attributes(node).get("coordinate_transformation_mode") == b"half_pixel_symmetric" and target < 19:
        raise _refused(node, "coordinate_transformation_mode half_pixel_symmetric")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}


def _remove(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _refused(node: onnx.NodeProto, what: str) -> RespellError:
    return RespellError(f"node {name_of(node)} is {node.op_type}, whose {what} cannot be written")
