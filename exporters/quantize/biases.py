"""Scales of weights for which the biases of an int8 TFLite file fit into int32.

A layer adds its bias b to a sum of products of integers, so that the scale of the bias is s_x s_w, the scale of the
input times the scale of the weight. A quantizer takes s_w from the filter alone, as the filter's largest value over
127. Where a filter is zero or tiny, which training with weight decay leaves behind a batch normalization, b / (s_x s_w)
is beyond int32, and the channel would lose its bias. The scale of such a channel becomes the smallest one for which

    |b| <= s_x s_w 2^30         the bias fits, with the other half of int32 for the products
    s_y <= s_x s_w 2^24         kernels round factors s_x s_w / s_y that are smaller to zero

The filter's own rounding is then larger than the quantizer would have it, and still below the rounding of the output:
the products of 2^16 inputs change by less than a step s_y, or by less than 2^-6 of the bias.

A bias can lie far beyond the outputs that the calibration images show, behind a ReLU that cuts everything off. With |w|
the sum of the filter's absolute values, no sum of products is larger than 255 s_x |w|, and a bias beyond

    255 s_x |w| + 512 s_y

makes every output the smallest or the largest one. The file has that number in place of such a bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

#: The largest bias in steps of s_x s_w, and the smallest s_x s_w / s_y.
_LARGEST, _LEAST_RATIO = 2.0**30, 2.0**-24
#: The steps of an input and of a weight, and a number of steps that no output has.
_INPUT_STEPS, _WEIGHT_STEPS, _BEYOND = 255, 127, 512

#: Where operators have their input, weight and bias.
_PLACES = {
    schema.BuiltinOperator.CONV_2D: (0, 1, 2),
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: (0, 1, 2),
    schema.BuiltinOperator.FULLY_CONNECTED: (0, 1, 2),
    schema.BuiltinOperator.TRANSPOSE_CONV: (2, 1, 3),
}


def fit_biases(model: schema.ModelT, plain: schema.ModelT) -> None:
    """Gives the weights of ``model``, an int8 file, such scales, in place; ``plain`` is the float32 file.

    Layers whose biases fit stay as they are.
    """
    tables = _Tables(model, plain)
    layers = list(tables.layers())
    needed: dict[int, np.ndarray] = {}
    for layer in layers:
        needed[layer.weight] = np.maximum(needed.get(layer.weight, 0.0), layer.least_scales())
    present = {weight: tables.scales(weight) for weight in needed}
    for weight, least in needed.items():
        if (least > present[weight]).any():
            tables.rescale(weight, np.maximum(present[weight], least))
    for layer in layers:
        changed = (needed[layer.weight] > present[layer.weight]).any()
        if changed or (np.abs(layer.given) > layer.scale_in * present[layer.weight] * _LARGEST).any():
            tables.write_bias(layer)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer's weight and bias as numbers of tensors, the ``given`` bias of the float32 file and the ``bias`` that is
    as good, the scales of the layer's input and output, and whether the weight has a scale for each channel.
    """

    weight: int
    bias_index: int
    given: np.ndarray
    bias: np.ndarray
    scale_in: float
    scale_out: float
    per_channel: bool

    def least_scales(self) -> np.ndarray:
        """The smallest scales of the weight, [O] or [1]."""
        found = np.maximum(np.abs(self.bias) / _LARGEST, self.scale_out * _LEAST_RATIO) / self.scale_in
        return found if self.per_channel else found.max(keepdims=True)


class _Tables:
    """The tensors of an int8 file, and the float values behind them."""

    def __init__(self, model: schema.ModelT, plain: schema.ModelT) -> None:
        self._model, self._tensors = model, model.subgraphs[0].tensors
        self._plain = {
            tensor.name: np.frombuffer(buffer, np.float32).reshape(tensor.shape)
            for tensor in plain.subgraphs[0].tensors
            if tensor.type == schema.TensorType.FLOAT32 and (buffer := plain.buffers[tensor.buffer].data) is not None
        }

    def layers(self) -> Iterator[_Layer]:
        """The layers that multiply integers and add a bias."""
        codes = [code.builtinCode for code in self._model.operatorCodes]
        for operator in self._model.subgraphs[0].operators:
            places = _PLACES.get(codes[operator.opcodeIndex])
            if places is None or len(operator.inputs) <= places[2] or operator.inputs[places[2]] < 0:
                continue
            x, weight, bias = (int(operator.inputs[place]) for place in places)
            if self._tensors[x].type == self._tensors[weight].type == schema.TensorType.INT8:
                yield self._layer(x, weight, bias, int(operator.outputs[0]))

    def _layer(self, x: int, weight: int, bias: int, y: int) -> _Layer:
        given = self._values(bias)
        scale_in, scale_out = (float(self.scales(end)[0]) for end in (x, y))
        filters = np.moveaxis(np.abs(self._values(weight)), self._axis(weight), 0).reshape(len(given), -1)
        beyond = _INPUT_STEPS * scale_in * filters.sum(axis=1) + _BEYOND * scale_out
        per_channel = len(self.scales(weight)) > 1
        return _Layer(weight, bias, given, np.clip(given, -beyond, beyond), scale_in, scale_out, per_channel)

    def scales(self, index: int) -> np.ndarray:
        """The scales of a tensor, [1] or one for each channel."""
        return np.asarray(self._tensors[index].quantization.scale, np.float64)

    def rescale(self, index: int, scales: np.ndarray) -> None:
        """Writes a weight with other scales."""
        tensor, values = self._tensors[index], self._values(index)
        tensor.quantization.scale = scales.astype(np.float32)
        along = [1] * values.ndim
        along[self._axis(index)] = -1
        integers = np.rint(values / scales.reshape(along))
        self._store(tensor, np.clip(integers, -_WEIGHT_STEPS, _WEIGHT_STEPS).astype(np.int8))

    def write_bias(self, layer: _Layer) -> None:
        """Writes a layer's bias for the present scales of its weight."""
        tensor, steps = self._tensors[layer.bias_index], layer.scale_in * self.scales(layer.weight)
        tensor.quantization.scale = steps.astype(np.float32)
        self._store(tensor, np.rint(layer.bias / steps).astype(np.int32))

    def _values(self, index: int) -> np.ndarray:
        """The float32 file's values of a constant, as float64."""
        return self._plain[self._tensors[index].name].astype(np.float64)

    def _axis(self, index: int) -> int:
        """The axis of a weight's output channels."""
        return int(self._tensors[index].quantization.quantizedDimension)

    def _store(self, tensor: Any, values: np.ndarray) -> None:
        """Gives a tensor new bytes, in a buffer of its own where others share the old one."""
        if sum(other.buffer == tensor.buffer for other in self._tensors) > 1:
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(schema.BufferT())
        self._model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
