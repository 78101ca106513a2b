"""A model without its large weights: ONNX's own tools need no more, and a file of any size costs next to nothing."""

from __future__ import annotations

import onnx
import onnx_ir as ir

#: Weights above this size, in bytes, are left out; smaller tensors may be shapes and axes, whose values count.
_LARGE = 1024


def outline(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model with its large weights as inputs, and these weights by name.

    Initializers must not be among the model's inputs.
    """
    large = {
        str(value.name): value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > _LARGE
    }
    rest = model.clone()
    for name, tensor in large.items():
        value = rest.graph.initializers.pop(name)
        value.const_value = None
        value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        rest.graph.inputs.append(value)
    return ir.serde.serialize_model(rest), large


def fill_in(model: ir.Model, weights: dict[str, ir.TensorProtocol]) -> None:
    """Puts the weights back in the place of the inputs that ``outline`` made of them."""
    for value in list(model.graph.inputs):
        if value.name in weights:
            model.graph.inputs.remove(value)
            value.const_value = weights[value.name]
            model.graph.register_initializer(value)
