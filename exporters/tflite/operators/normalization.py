"""BatchNormalization in evaluation mode (one multiplication and one addition per channel), and the normalizations by
statistics of the input itself.
"""

from __future__ import annotations

import numpy as np

from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import NHWC, Order, Value, arrange_constant
from edgekron.exporters.tflite.program import Tensor
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import ANY, Call, used


@translates("BatchNormalization")
def batch_normalization(call: Call) -> None:
    """Scale (x - mean) / sqrt(var + epsilon) + bias = x m + (bias - mean m) with m = scale / sqrt(var + epsilon)."""
    if call.attribute("training_mode", 0):
        call.refuse("it is in training mode", "export the network in evaluation mode (model.eval())")
    scale, bias, mean, variance = (
        call.numbers(i, what).astype(np.float64)
        for i, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    multiplier = scale / np.sqrt(variance + float(call.attribute("epsilon", 1e-5)))
    x = call.value()
    trailing = (1,) * (len(x.order) - 2)
    y = x.tensor
    for code, vector, name in (("MUL", multiplier, "scale"), ("ADD", bias - mean * multiplier, "shift")):
        array = arrange_constant(vector.astype(np.float32).reshape(-1, *trailing), x.order)
        constant = call.program.constant(f"{call.name}/{name}", array)
        y = call.program.emit(code, [y, constant], y.shape, call.name)
    call.finish(y, x.order)


@translates("Identity", "Dropout")
def identity(call: Call) -> None:
    """The same value under another name; Dropout does nothing in evaluation."""
    training = call.array(2) if call.node.op_type == "Dropout" else None
    if training is not None and bool(training):
        call.refuse("it is in training mode", "export the network in evaluation mode (model.eval())")
    if any(map(used, call.node.outputs[1:])):
        call.refuse("its mask is used", "export the network in evaluation mode (model.eval())")
    call.result(call.value(kinds=ANY))


@translates("InstanceNormalization")
def instance_normalization(call: Call) -> None:
    """Each channel of each image by its own mean and variance over the pixels, then scale and bias."""
    x = call.value()
    scale, bias = call.numbers(1, "scale"), call.numbers(2, "bias")
    trailing = (1,) * (len(x.order) - 2)
    y = _normalized(call, x, range(2, len(x.order)))
    call.finish(_affine(call, y, x.order, scale.reshape(-1, *trailing), bias.reshape(-1, *trailing)), x.order)


@translates("LayerNormalization")
def layer_normalization(call: Call) -> None:
    """All values from ``axis`` on by their mean and variance, then scale and bias."""
    x = call.value()
    rank = len(x.order)
    y = _normalized(call, x, range(int(call.attribute("axis", -1)) % rank, rank))
    bias = call.numbers(2, "bias") if call.has(2) else None
    call.finish(_affine(call, y, x.order, call.numbers(1, "scale"), bias), x.order)


@translates("LpNormalization")
def lp_normalization(call: Call) -> None:
    """The input over its norm along one axis; zero if the norm is zero."""
    x, f, p = call.value(), Formula(call), int(call.attribute("p", 2))
    places = [x.axis(int(call.attribute("axis", -1)))]
    if p not in (1, 2):
        call.refuse(f"p is {p}", "use p=1 or p=2")
    total = f.reduce("SUM", f("ABS", x.tensor) if p == 1 else f("MUL", x.tensor, x.tensor), places)
    norm = total if p == 1 else f("SQRT", total)
    # Zero over the smallest number is zero; any other norm of float32 is at least as large.
    call.finish(f("DIV", x.tensor, f("MAXIMUM", norm, float(np.finfo(np.float32).tiny))), x.order)


@translates("LRN")
def local_response_normalization(call: Call) -> None:
    """X / (bias + alpha / size * (squares of the neighbouring channels, summed)) ^ beta."""
    size = int(call.attribute("size"))
    if size % 2 == 0:
        call.refuse(f"a window of {size} channels has no middle", "use an odd size")
    if call.rank() != 4:
        call.refuse(f"an input of rank {call.rank()} is not supported", "use 2-D feature maps")
    x = call.value(0, NHWC).tensor
    y = call.program.emit(
        "LOCAL_RESPONSE_NORMALIZATION",
        [x],
        x.shape,
        call.name,
        radius=size // 2,
        bias=float(call.attribute("bias", 1.0)),
        alpha=float(call.attribute("alpha", 1e-4)) / size,
        beta=float(call.attribute("beta", 0.75)),
    )
    call.finish(y, NHWC)


def _normalized(call: Call, x: Value, axes: range) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) over ONNX axes."""
    program, name = call.program, call.name
    places = program.integers(f"{name}/axes", sorted(x.axis(a) for a in axes))
    one = [1 if i in (places.data if places.data is not None else ()) else n for i, n in enumerate(x.tensor.shape)]
    epsilon = program.constant(f"{name}/epsilon", np.array([call.attribute("epsilon", 1e-5)], np.float32))
    mean = program.emit("MEAN", [x.tensor, places], one, f"{name}/mean", keepDims=True)
    centred = program.emit("SUB", [x.tensor, mean], x.tensor.shape, f"{name}/centred")
    squares = program.emit("MUL", [centred, centred], x.tensor.shape, f"{name}/squares")
    variance = program.emit("MEAN", [squares, places], one, f"{name}/variance", keepDims=True)
    safe = program.emit("ADD", [variance, epsilon], one, f"{name}/safe")
    deviation = program.emit("SQRT", [safe], one, f"{name}/deviation")
    return program.emit("DIV", [centred, deviation], x.tensor.shape, name)


def _affine(call: Call, y: Tensor, order: Order, scale: np.ndarray, bias: np.ndarray | None) -> Tensor:
    for code, array, what in (("MUL", scale, "scale"), ("ADD", bias, "shift")):
        if array is not None:
            constant = call.program.constant(f"{call.name}/{what}", arrange_constant(array, order))
            y = call.program.emit(code, [y, constant], y.shape, call.name)
    return y
