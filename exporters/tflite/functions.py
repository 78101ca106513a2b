"""Operators that ONNX defines by other operators.

Many operators (Shrink, GroupNormalization, MeanVarianceNormalization, ...) have a body in the standard itself. An
operator without a translator of its own is translated by translating the nodes of its body; constant parts of the body
are folded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, inliner, numpy_helper

from .registry import TRANSLATORS
from .translation import Translation, UnsupportedError, describe, used

#: Attributes of a schema that say whether it has a body, a fixed one or one that depends on the node.
_BODIES = ("has_function", "has_context_dependent_function")
_TYPES = {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64, "b": onnx.TensorProto.BOOL}


def expand(translation: Translation, node: ir.Node, layer: str, translate: Callable[[ir.Node], None]) -> bool:
    """Translates the body of an operator by ``translate``; False if the standard gives the operator no body.

    Raises ``UnsupportedError`` with the name of the operator and of the node in its body that has no translation.
    """
    if node.domain:
        return False
    if node.op_type == "If":
        return _branch(translation, node, translate)
    if not has_body(node.op_type, translation.opset):
        return False
    graph = ir.serde.deserialize_model(_inlined(translation, node)).graph
    if any(inner.op_type == node.op_type for inner in graph):
        return False
    try:
        _translate_body(translation, node, graph, translate)
    except UnsupportedError as error:
        where = describe(node, layer)
        raise UnsupportedError(f"{where}: ONNX makes it of other operators, one of which fails: {error}") from None
    return True


def _translate_body(
    translation: Translation, node: ir.Node, graph: ir.Graph, translate: Callable[[ir.Node], None]
) -> None:
    outside = {value.name: value for value in (*node.inputs, *node.outputs) if value is not None}
    for value in (*graph.inputs, *graph.initializers.values()):
        _copy(translation, outside[value.name], value)
    for inner in graph:
        for value in inner.outputs:
            if value.name not in outside:
                value.name = f"{node.outputs[0].name}/{value.name}"
        translate(inner)
    for value in graph.outputs:
        _copy(translation, value, outside[value.name])


def _branch(translation: Translation, node: ir.Node, translate: Callable[[ir.Node], None]) -> bool:
    """Translates the branch of an If that a constant condition takes; False if the condition is not constant."""
    condition = translation.constant(node.inputs[0])
    if condition is None:
        return False
    graph = node.attributes["then_branch" if condition.all() else "else_branch"].as_graph()
    for inner in graph:
        translate(inner)
    for value, result in zip(graph.outputs, node.outputs, strict=True):
        _copy(translation, value, result)
    return True


def translatable(operator: str, domain: str, opset: int) -> bool:
    """Whether an operator has a translator, or a body in the standard."""
    return not domain and (operator in TRANSLATORS or has_body(operator, opset))


def has_body(operator: str, opset: int) -> bool:
    """Whether the standard defines an operator of the default domain by others."""
    if not onnx.defs.has(operator):
        return False
    try:
        schema = onnx.defs.get_schema(operator, opset)
    except onnx.defs.SchemaError:
        return False
    return any(getattr(schema, name) for name in _BODIES)


def _inlined(translation: Translation, node: ir.Node) -> onnx.ModelProto:
    """A model of the node alone, with the types and shapes of its values, in which its body replaces the node."""
    inputs, initializers = [], []
    for value in dict.fromkeys(v for v in node.inputs if v is not None):
        array = translation.constant(value)
        if array is not None:
            initializers.append(numpy_helper.from_array(np.asarray(array), value.name))
            kind = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
            inputs.append(helper.make_tensor_value_info(str(value.name), kind, array.shape))
        else:
            given = translation.values[value]
            kind = _TYPES[given.tensor.dtype.kind]
            inputs.append(helper.make_tensor_value_info(str(value.name), kind, given.shape))
    outputs = [onnx.ValueInfoProto(name=value.name) for value in node.outputs if used(value)]
    graph = helper.make_graph([_complete(node, translation.opset)], "body", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", translation.opset)])
    try:
        return inliner.inline_selected_functions(model, [("", node.op_type)], inline_schema_functions=True)
    except RuntimeError:
        # The inliner needs the type of every input, absent ones included: if it fails, the node keeps its place.
        return model


def _complete(node: ir.Node, opset: int) -> onnx.NodeProto:
    """The node with the defaults of its attributes: the body refers to them, and the inliner drops absent ones."""
    proto = ir.serde.serialize_node(node)
    for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
    return proto


def _copy(translation: Translation, source: ir.Value, target: ir.Value) -> None:
    """Gives ``target`` the constant or the value in the file that ``source`` has."""
    array = translation.constant(source)
    if array is not None:
        translation.constants[target] = array
    elif source in translation.values:
        translation.values[target] = translation.values[source]
