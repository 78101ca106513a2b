"""Refuses weights that are not finite, with the name of their layer.

Only tensors of several values that a layer uses as parameters are checked: an infinite limit of a Clip, or an infinite
padding value, is legitimate.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.errors import UserError

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}
_WITH_PARAMETERS = {
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "PRelu",
    "Add",
    "Mul",
}


def check_finite(model: ir.Model, source: str) -> None:
    """Raises ``UserError`` that names the first layer with NaN or infinite weights."""
    for node in model.graph:
        if node.op_type not in _WITH_PARAMETERS:
            continue
        for value in node.inputs:
            if value is None or value.const_value is None or value.const_value.dtype not in _FLOATS:
                continue
            if value.const_value.size > 1 and not np.isfinite(value.const_value.numpy()).all():
                name = str(value.name)
                layer = name.rsplit(".", 1)[0] if "." in name else f"{node.name or node.op_type} (tensor {name})"
                raise UserError(
                    f"{source}: the weights of layer {layer} contain NaN or infinite values; "
                    "the training that made them went wrong, use an earlier checkpoint"
                )
