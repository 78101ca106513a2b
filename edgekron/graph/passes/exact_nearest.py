"""Replaces nearest resizes that ONNX Runtime reads from the wrong pixels by gathers from the right ones.

Torch's nearest takes for output i of m, from n pixels, the pixel floor(i n / m). In ONNX this is the mode "asymmetric"
with "floor", and ONNX Runtime computes the pixel as floor(i / s) with s = m / n, both rounded to float32: if i n / m is
a whole number, the result may be the pixel before. From 14 pixels to 2 the runtime reads 0 and 6, not 0 and 7; of all
sizes up to 128 four in a hundred pairs have such a pixel. Indices in a constant leave nothing to round. (In one pair of
a hundred, torch itself rounds to another pixel; the graph keeps to the meaning of the operator.)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgekron.graph.axes import open_sizes
from edgekron.graph.nodes import add_initializer, replace_node
from edgekron.graph.values import constant

#: How far a scale that is given may be from the ratio of the sizes.
_SAME = 1e-6


def make_nearest_exact(model: ir.Model) -> None:
    """Replaces every Resize of that mode whose pixels ONNX Runtime does not find.

    Nothing is done for a source that leaves sizes open: indices would be right for one size alone.
    """
    if open_sizes(model):
        return
    for node in list(model.graph):
        if _is_floor(node):
            indices = _indices(node)
            if any(not np.array_equal(exact, _runtime(exact, n)) for n, exact in indices.values()):
                _gather(model.graph, node, {axis: exact for axis, (_, exact) in indices.items()})
    # What computed the sizes of a resize.
    common.RemoveUnusedNodesPass()(model)


def _is_floor(node: ir.Node) -> bool:
    wanted = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    standard = {"mode": "nearest", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"}
    return (
        node.op_type == "Resize"
        and not node.domain
        and all(node.attributes.get_string(key, standard[key]) == value for key, value in wanted.items())
    )


def _indices(node: ir.Node) -> dict[int, tuple[int, np.ndarray]]:
    """For each axis that changes, its size and the pixel of every output; empty if sizes are not known."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or y.shape is None or len(x.shape) != len(y.shape):
        return {}
    # The batch, whose size has a name of its own behind a resize, stays what it is.
    pairs = [(axis, n, m) for axis, (n, m) in enumerate(zip(x.shape, y.shape, strict=True)) if axis and n != m]
    scales = _scales(node, len(x.shape))
    found = {}
    for axis, n, m in pairs:
        if not isinstance(n, int) or not isinstance(m, int) or abs(scales.get(axis, m / n) * n / m - 1) > _SAME:
            return {}
        found[axis] = (n, np.arange(m) * n // m)
    return found


def _scales(node: ir.Node, rank: int) -> dict[int, float]:
    """The scales of a Resize by axis; none for a Resize to given sizes."""
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is None or not scales.size:
        return {}
    axes = node.attributes.get_ints("axes", range(rank))
    return {axis % rank: float(scale) for axis, scale in zip(axes, scales, strict=True)}


def _runtime(exact: np.ndarray, size: int) -> np.ndarray:
    """The pixels that ONNX Runtime reads."""
    scale = np.float32(len(exact)) / np.float32(size)
    return np.floor(np.arange(len(exact), dtype=np.float32) / scale).astype(np.int64).clip(0, size - 1)


def _gather(graph: ir.Graph, node: ir.Node, indices: dict[int, np.ndarray]) -> None:
    value, nodes = node.inputs[0], []
    sizes = list(value.shape or ()) if value is not None else []
    for axis, pixels in indices.items():
        taken = add_initializer(graph, f"{node.outputs[0].name}.axis{axis}", pixels.astype(np.int64))
        gather = ir.Node("", "Gather", [value, taken], [ir.AttrInt64("axis", axis)], name=f"{node.name}.{axis}")
        sizes[axis] = len(pixels)
        value = gather.outputs[0]
        value.name, value.shape, value.type = str(gather.name), ir.Shape(sizes), node.outputs[0].type
        nodes.append(gather)
    replace_node(node, nodes)
