"""Factorized layers: the steps of ``edgekron.algebra.lowering`` in NHWC.

A shuffle of the channels is one transpose of [pixels, parts of the channels]; a fold is a fold into the width (see
``convolution``). A fully connected layer has the same steps on [rows, channels], with matrix products in place of
convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgekron.algebra import Geometry, StructureError
from edgekron.algebra.steps import Bias, Conv, ConvTranspose, MatMul, Shuffle, Step
from edgekron.graph.factorized import Factorized, read_node

from .convolution import Filters, convolve
from .layout import NHWC
from .operators.linear import fully_connected
from .program import Program, Tensor, merged
from .translation import Call
from .transposed import transpose_convolve


def factorized(call: Call, forms: Mapping[str, Sequence[str]]) -> None:
    """Translates the node of a factorized layer; ``forms`` under the layer's name replace the forms in the node."""
    layer = read_node(call.node)
    call.layer = layer.layer
    steps = _steps(call, layer, forms.get(layer.layer))
    if layer.kind == "linear":
        x = call.value(0, (0, 1)).tensor
        call.finish(_linear(call, x, steps, layer), (0, 1))
        return
    x = call.value(0, NHWC).tensor
    try:
        y = _conv(call.program, x, steps, layer, call.name)
    except ValueError as error:
        call.refuse(str(error), "give the network a larger input")
    call.finish(y, NHWC)


def _steps(call: Call, layer: Factorized, forms: Sequence[str] | None) -> tuple[Step, ...]:
    try:
        return layer.steps("tflite", forms)
    except StructureError as error:
        call.refuse(str(error), "compress the layer again or correct its forms")


def _conv(program: Program, x: Tensor, steps: Sequence[Step], layer: Factorized, name: str) -> Tensor:
    for index, step in enumerate(steps):
        at = name if index == len(steps) - 1 else f"{name}/{index}"
        match step:
            case Shuffle():
                x = shuffle(program, x, step, at)
            case Conv():
                x = convolve(program, x, _filters(step, layer), step.geometry, at, fold=step.fold)
            case ConvTranspose():
                x = _spread(program, x, step, layer, at)
            case Bias():
                x = _add(program, x, step, layer, at)
            case MatMul():
                raise AssertionError("a matrix product from the left is no TFLite form")
    return x


def _spread(program: Program, x: Tensor, step: ConvTranspose, layer: Factorized, name: str) -> Tensor:
    """A transposed convolution: groups as zeros in a kernel for all channels, slices as a fold into the width."""
    n, height, width, channels = x.shape
    filters = _filters(step, layer)
    kernel = _for_all_channels(filters.kernel, step.groups)
    window, geometry, fold = (kernel.shape[2], kernel.shape[3]), step.geometry, step.fold
    (top, below), (left, right) = geometry.crop(window)
    y = transpose_convolve(
        program,
        program.reshape(x, (n, height, width * fold, channels // fold), f"{name}/folded"),
        replace(filters, kernel=kernel, groups=1),
        Geometry(
            geometry.upsample,
            (geometry.dilation[0], geometry.dilation[1] * fold),
            ((top, max(below, 0)), (left * fold, max(right, 0) * fold)),
        ),
        (max(-below, 0), max(-right, 0) * fold),
        name,
    )
    height, width = geometry.output_size((height, width), window)
    return program.reshape(y, (n, height, width, kernel.shape[1] * fold), name)


def _for_all_channels(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weight [I, O, kh, kw] of one group, with zeros, from ``weight`` [I, O / groups, kh, kw] of ``groups``."""
    inputs, outputs, h, w = weight.shape
    whole = np.zeros((groups, inputs // groups, groups, outputs, h, w), weight.dtype)
    for group, part in enumerate(np.split(weight, groups)):
        whole[group, :, group] = part
    return whole.reshape(inputs, groups * outputs, h, w)


def _linear(call: Call, x: Tensor, steps: Sequence[Step], layer: Factorized) -> Tensor:
    program = call.program
    for index, step in enumerate(steps):
        at = call.name if index == len(steps) - 1 else f"{call.name}/{index}"
        match step:
            case Shuffle():
                x = shuffle(program, x, step, at)
            case Conv():
                x = _product(program, x, step, _filters(step, layer), at)
            case Bias():
                x = _add(program, x, step, layer, at)
            case MatMul() | ConvTranspose():
                raise AssertionError(f"a fully connected layer has no {type(step).__name__} in TFLite")
    return x


def _product(program: Program, x: Tensor, step: Conv, filters: Filters, name: str) -> Tensor:
    """A pointwise convolution on [rows, channels]: slices become rows, groups a grouped convolution of one pixel."""
    rows, channels = x.shape
    weight = filters.kernel
    outputs = step.fold * weight.shape[0]
    if step.groups > 1:
        image = program.reshape(x, (rows, 1, 1, channels), f"{name}/image")
        image = convolve(program, image, filters, step.geometry, f"{name}/grouped", fold=step.fold)
        return program.reshape(image, (rows, outputs), name)
    x = program.reshape(x, (rows * step.fold, channels // step.fold), f"{name}/rows")
    y = fully_connected(program, x, weight.reshape(weight.shape[:2]), filters.bias, f"{name}/product", filters.name)
    return program.reshape(y, (rows, outputs), name)


def shuffle(program: Program, x: Tensor, step: Shuffle, name: str) -> Tensor:
    """The channels, the last axis of ``x``, in another order: reshape, transpose, reshape."""
    shape, order = merged(step.shape, step.order)
    if len(order) < 2:
        return x
    pixels = math.prod(x.shape[:-1])
    parts = program.reshape(x, (pixels, *shape), f"{name}/parts")
    moved = program.transpose(parts, (0, *(a + 1 for a in order)), f"{name}/moved")
    return program.reshape(moved, x.shape, name)


def _add(program: Program, x: Tensor, step: Bias, layer: Factorized, name: str) -> Tensor:
    constant = program.constant(f"{layer.layer}.bias", _ordered(step.order, layer))
    return program.emit("ADD", [x, constant], x.shape, name)


def _ordered(order: Shuffle, layer: Factorized) -> np.ndarray:
    if layer.bias is None:
        raise AssertionError(f"layer {layer.layer} has no bias")
    vector: np.ndarray = order.apply(layer.bias)
    return np.ascontiguousarray(vector)


def _filters(step: Conv | ConvTranspose, layer: Factorized) -> Filters:
    """The constants of a step; the kernel is named after the layer and the factors that make the kernel."""
    name = ".".join([layer.layer, *(f"factor{i}" for i in step.weight.factors)])
    bias = None if step.bias is None else _ordered(step.bias, layer)
    return Filters(step.weight.evaluate(layer.tensors), name, bias, step.groups)
