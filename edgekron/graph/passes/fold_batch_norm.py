"""Folds batch normalisation into the convolution or fully connected layer before it.

At inference a batch normalisation with scale g, shift b, mean m and variance v is affine on each channel:

    y = g * (x - m) / sqrt(v + eps) + b = s * x + (b - s * m)        with s = g / sqrt(v + eps)

so for x = W * z + c it becomes y = (s W) * z + (s (c - m) + b), with s on the output channels of W, all in float64.
Those of a transposed convolution, whose weight is [C, F / groups, kh, kw], are on its second axis, group by group.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekron.graph.nodes import add_initializer, release_parameters, remove_node
from edgekron.graph.values import float_constant, required

#: Prefix of the metadata keys: behind it stands the layer, the value is the normalisation.
FOLDED = "edgekron.folded."
_LAYERS = ("Conv", "ConvTranspose", "Gemm")


def fold_batch_norm(model: ir.Model) -> None:
    """Folds every BatchNormalization whose input a Conv, ConvTranspose or Gemm makes for it alone, all constant."""
    for node in list(model.graph):
        if node.op_type == "BatchNormalization" and not node.domain:
            _fold(model, node)


def folded_norms(model: ir.Model) -> dict[str, str]:
    """Names of the layers that had a batch normalisation folded into them, with the normalisation's name."""
    props = model.metadata_props.items()
    return {key.removeprefix(FOLDED): norm for key, norm in props if key.startswith(FOLDED)}


def _fold(model: ir.Model, norm: ir.Node) -> None:
    graph = model.graph
    x, y = norm.inputs[0], norm.outputs[0]
    layer = x.producer() if x is not None else None
    parameters = [_constant(value) for value in norm.inputs[1:5]]
    if x is None or layer is None or layer.domain or layer.op_type not in _LAYERS:
        return
    if len(x.uses()) != 1 or x.is_graph_output() or norm.attributes.get_int("training_mode", 0) != 0:
        return
    if layer.inputs[1] is None or len(layer.inputs[1].uses()) > 1:
        # A layer that is used twice stays one layer, also where a normalisation follows each use.
        return
    weight = _constant(layer.inputs[1])
    bias_value = layer.inputs[2] if len(layer.inputs) > 2 else None
    old_bias = _constant(bias_value) if bias_value is not None else np.zeros(1)
    if weight is None or old_bias is None or any(p is None for p in parameters):
        return
    if layer.op_type == "Gemm":
        if layer.attributes.get_float("alpha", 1.0) != 1.0 or layer.attributes.get_float("beta", 1.0) != 1.0:
            return
        if old_bias.ndim == 2 and old_bias.shape[0] != 1:
            return
    scale, shift, mean, variance = (np.asarray(p, dtype=np.float64) for p in parameters)
    factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    new_weight = (weight * _along_outputs(layer, weight, factor)).astype(np.float32)
    new_bias = (factor * (old_bias.reshape(-1) - mean) + shift).astype(np.float32)
    stem = str(layer.inputs[1].name).removesuffix(".weight")
    model.metadata_props[FOLDED + stem] = str(required(norm, 1).name).removesuffix(".weight")
    _set_parameters(graph, layer, new_weight, new_bias)
    if y.is_graph_output():
        x.name, y.name = y.name, f"{y.name}.normalised"
    ir.convenience.replace_all_uses_with(y, x, replace_graph_outputs=True)
    remove_node(norm)


def _along_outputs(layer: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """``factor`` [F] in a shape to be multiplied with the layer's weight."""
    if layer.op_type == "ConvTranspose":
        groups = layer.attributes.get_int("group", 1)
        by_input = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        return by_input.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    channels = 1 if layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0) else 0
    along = [1] * weight.ndim
    along[channels] = -1
    return factor.reshape(along)


def _set_parameters(graph: ir.Graph, layer: ir.Node, weight: np.ndarray, bias: np.ndarray) -> None:
    name = str(required(layer, 1).name)
    stem = name.removesuffix(".weight")
    release_parameters(layer)
    layer.resize_inputs(3)
    layer.replace_input_with(1, add_initializer(graph, name, weight))
    layer.replace_input_with(2, add_initializer(graph, f"{stem}.bias", bias))


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of a float32 initializer in float64."""
    array = float_constant(value)
    return None if array is None else array.astype(np.float64)
