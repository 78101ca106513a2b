"""Keeps the meaning of nodes of old versions that ONNX's version converter carries over with another one.

============================  =====  =======================================================================
``Upsample``, ``Resize``      to 10  pixels lie at x / scale, from the corner; the nearest one is the one
                                     before, in an axis that shrinks the one behind
``Hardmax``                   to 12  all axes from ``axis`` on count as one
============================  =====  =======================================================================

The meaning of ``Resize`` in version 10 is that of ONNX Runtime; the standard leaves it open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper, shape_inference

from .passes.fold_constants import fold_constants
from .passes.infer_shapes import infer_shapes
from .respell import RespellError, every_node, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

#: The last versions in which the operators mean something else.
_RESIZE, _HARDMAX = 10, 12


def keep_meaning(proto: onnx.ModelProto, opset: int, aside: str) -> None:
    """Rewrites the nodes, in place.

    Those that only a newer version can write are written so, in the domain ``aside``, where the converter leaves them
    alone. Raises ``RespellError`` for a node whose meaning the newer version cannot say.
    """
    if opset <= _HARDMAX:
        for nodes in _lists(proto.graph):
            _split_hardmax(nodes)
    if opset > _RESIZE:
        return
    resizes = [node for node in every_node(proto.graph) if node.op_type in ("Upsample", "Resize") and not node.domain]
    if not resizes:
        return
    # The converter needs the shapes of what lies behind these nodes, and cannot infer them through the domain.
    proto.CopyFrom(shape_inference.infer_shapes(proto, data_prop=True))
    scales = _scales(proto)
    for node in every_node(proto.graph):
        if node.op_type in ("Upsample", "Resize") and not node.domain:
            _set_resize(proto.graph, node, scales.get(node.output[0]))
            node.domain = aside


def _set_resize(graph: onnx.GraphProto, node: onnx.NodeProto, scales: list[float] | None) -> None:
    """Writes an Upsample or Resize as a Resize of today."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    mode = given.get("mode", b"nearest")
    said = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": _rounding(node, mode, scales)}
    if "scales" in given:
        factors = numpy_helper.from_array(np.array(given["scales"], np.float32), f"{node.output[0]}.scales")
        graph.initializer.append(factors)
        node.input.append(factors.name)
    image, factor = node.input
    node.op_type = "Resize"
    del node.attribute[:], node.input[:]
    node.input.extend([image, "", factor])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in said.items())


def _rounding(node: onnx.NodeProto, mode: bytes, scales: list[float] | None) -> str:
    if node.op_type == "Upsample" or mode != b"nearest":
        return "floor"
    if scales is None:
        raise RespellError(f"node {name_of(node)} is {node.op_type}, whose scales are computed and cannot be written")
    if min(scales) >= 1:
        return "floor"
    if max(scales) > 1:
        raise RespellError(f"node {name_of(node)} is {node.op_type}, whose scales {scales} cannot be written")
    return "ceil"


def _scales(proto: onnx.ModelProto) -> dict[str, list[float]]:
    """The scales of each Resize with constant ones in the main graph, by its result."""
    probe = ir.serde.deserialize_model(proto)
    wanted = {node.output[0]: node.input[1] for node in proto.graph.node if node.op_type == "Resize"}
    values = {value.name: value for node in probe.graph for value in node.outputs} | dict(probe.graph.initializers)
    computed = dict.fromkeys(name for name in wanted.values() if name in values)
    # As outputs they keep their names while constants are folded.
    count = len(probe.graph.outputs)
    probe.graph.outputs.extend(values[name] for name in computed)
    infer_shapes(probe)
    fold_constants(probe)
    tensors = dict(zip(computed, map(ir.convenience.get_const_tensor, probe.graph.outputs[count:]), strict=True))
    return {
        result: [float(scale) for scale in tensor.numpy()]
        for result, name in wanted.items()
        if (tensor := tensors.get(name)) is not None
    }


def _split_hardmax(nodes: RepeatedCompositeFieldContainer[onnx.NodeProto]) -> None:
    made: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type != "Hardmax" or node.domain:
            made.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        x, y, name = node.input[0], node.output[0], name_of(node)
        made += [
            helper.make_node("Shape", [x], [f"{y}.sizes"], name=f"{name}.sizes"),
            helper.make_node("Flatten", [x], [f"{y}.rows"], name=f"{name}.rows", axis=axis),
            helper.make_node("Hardmax", [f"{y}.rows"], [f"{y}.hard"], name=name, axis=1),
            helper.make_node("Reshape", [f"{y}.hard", f"{y}.sizes"], [y], name=f"{name}.back"),
        ]
    if len(made) != len(nodes):
        del nodes[:]
        nodes.extend(made)


def _lists(graph: onnx.GraphProto) -> Iterator[RepeatedCompositeFieldContainer[onnx.NodeProto]]:
    """The nodes of the graph and of each graph inside it."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _lists(inner)
    yield graph.node
