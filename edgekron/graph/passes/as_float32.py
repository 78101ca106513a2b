"""Reads a graph in float16 as one in float32: weights, constants, inputs, outputs and casts.

The hub computes in float32; the type of a file is asked for when it is exported. A float32 value holds every float16
value exactly, so the weights stay the same numbers. Casts between the two types change nothing any more, and go with
the other casts that do nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
#: Attributes that name a type.
_TYPES = ("to", "dtype", "output_datatype", "stash_type")


def as_float32(model: ir.Model) -> bool:
    """Changes every float16 value of the graph and of its bodies; whether there was one."""
    changed = False
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            changed |= _widen(value)
        for node in graph:
            for output in node.outputs:
                changed |= _widen(output)
            for name, attribute in list(node.attributes.items()):
                new = _attribute(attribute)
                if new is not None:
                    node.attributes[name] = new
                    changed = True
    return changed


def _widen(value: ir.Value) -> bool:
    tensor = value.const_value
    if value.dtype != _HALF and (tensor is None or tensor.dtype != _HALF):
        return False
    if tensor is not None and tensor.dtype == _HALF:
        value.const_value = _tensor(tensor)
    value.dtype = _FLOAT
    return True


def _attribute(attribute: ir.Attr) -> ir.Attr | None:
    """The attribute in float32; None where it has nothing of float16."""
    if attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.INT and attribute.name in _TYPES and attribute.as_int() == _HALF:
        return ir.AttrInt64(attribute.name, _FLOAT.value)
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _HALF:
        return ir.AttrTensor(attribute.name, _tensor(attribute.as_tensor()))
    return None


def _tensor(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(np.asarray(tensor.numpy(), np.float32), name=tensor.name)
