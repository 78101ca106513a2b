"""Refuses a graph whose nodes do not fit together, such as a product of matrices of different sizes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from onnx import shape_inference

from edgekron.errors import UserError
from edgekron.graph.outline import outline

if TYPE_CHECKING:
    import onnx_ir as ir


def check_shapes(model: ir.Model, source: str) -> None:
    """Raises ``UserError`` that names the first node that ONNX's shape inference refuses.

    Needs inferred shapes. The channels of convolutions are compared here, as ONNX's inference does not look at them.
    """
    for node in model.graph:
        if node.op_type == "Conv" and not node.domain:
            _check_channels(node, source)
    proto, _ = outline(model)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (RuntimeError, ValueError) as error:
        said = re.search(r"op_type:(\w+), node name: ([^)]*)\): (?:\[\w+\] )*([^\n]*)", str(error))
        what = f"node {said[2]} ({said[1]}): {said[3]}" if said else str(error).strip().splitlines()[0]
        raise UserError(f"{source}: its nodes do not fit together, at {what}; export the model again") from error


def _check_channels(node: ir.Node, source: str) -> None:
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None or x.shape is None or weight.shape is None:
        return
    given, wanted, groups = x.shape[1], weight.shape[1], node.attributes.get_int("group", 1)
    if isinstance(given, int) and isinstance(wanted, int) and given != wanted * groups:
        raise UserError(
            f"{source}: its nodes do not fit together, at node {node.name} (Conv): its weight is for {wanted * groups} "
            f"channels and its input has {given}; export the model again"
        )
