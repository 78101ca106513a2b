"""MaxPool, AveragePool, LpPool and global pools."""

from __future__ import annotations

from functools import reduce

import numpy as np

from edgekron.algebra import Geometry
from edgekron.exporters.tflite.convolution import Filters, convolve
from edgekron.exporters.tflite.formula import Formula
from edgekron.exporters.tflite.layout import NHWC, Value
from edgekron.exporters.tflite.program import INTEGER, Program, Tensor, type_name
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, used
from edgekron.exporters.tflite.windows import Axis, Placement, padded, place

from .conv import explicit_padding
from .slicing import strided_slice


@translates("MaxPool")
def max_pool(call: Call) -> None:
    """MAX_POOL_2D, or MAXIMUM of slices if dilated; padded with -inf, or with zero if no input value is below zero."""
    x, axes = _axes(call)
    if any(map(used, call.node.outputs[1:])):
        _give_places(call, x, axes)
    placement = place(*axes)
    fill = 0.0 if _nonnegative(call.program, x) else -np.inf
    if any(axis.dilation > 1 for axis in axes):
        call.finish(_dilated_maximum(call, x, axes, fill), NHWC)
        return
    x = call.program.pad(x, ((0, 0), *placement.explicit, (0, 0)), f"{call.name}/padded", fill)
    call.finish(_pool(call, "MAX_POOL_2D", x, axes, placement), NHWC)


def _give_places(call: Call, x: Tensor, axes: tuple[Axis, Axis]) -> None:
    """Declares the second output: the place, in the whole input, of the first greatest value of each window."""
    h, w = axes
    if h.stride < h.window or w.stride < w.window:
        call.refuse("its indices are used, and its windows share pixels", "use strides of at least the window")
    n, height, width, channels = x.shape
    down, right = (1, height) if call.attribute("storage_order", 0) else (width, 1)
    planes = height * width * np.arange(n * channels).reshape(n, 1, 1, channels)
    corners = down * _starts(h)[:, None, None] + right * _starts(w)[:, None]
    steps = [(i * h.dilation, j * w.dilation) for i in range(h.places) for j in range(w.places)]
    first = planes + corners
    if len(steps) == 1:
        call.translation.constants[call.node.outputs[1]] = first.transpose(0, 3, 1, 2)
        return
    f, program, name = Formula(call), call.program, f"{call.name}/places"
    whole = program.pad(x, ((0, 0), *padded(h, w).explicit, (0, 0)), f"{name}/padded", -np.inf)
    ranges = [{1: (i, h.stride, h.output), 2: (j, w.stride, w.output)} for i, j in steps]
    parts = [f.view(strided_slice(program, whole, taken, f"{name}/part"), (1, first.size)) for taken in ranges]
    joined = program.emit("CONCATENATION", parts, (len(parts), first.size), f"{name}/parts", axis=0)
    inputs = [joined, program.integers(f"{name}/axis", 0)]
    part = program.emit("ARG_MAX", inputs, (first.size,), f"{name}/first", dtype=INTEGER, outputType=type_name(INTEGER))
    table = program.integers(f"{name}/steps", [down * i + right * j for i, j in steps])
    step = program.emit("GATHER", [table, part], (first.size,), f"{name}/step", axis=0)
    at = program.emit("ADD", [f.view(step, first.shape), program.integers(f"{name}/corners", first)], first.shape, name)
    call.result(Value(at, NHWC), 1)


def _starts(axis: Axis) -> np.ndarray:
    """The first pixel of each window."""
    return axis.stride * np.arange(axis.output) - axis.before


def _dilated_maximum(call: Call, x: Tensor, axes: tuple[Axis, Axis], fill: float) -> Tensor:
    """The MAXIMUM of one slice for each place of the window, along one axis after the other."""
    padding = ((0, 0), *padded(*axes).explicit, (0, 0))
    y, f = call.program.pad(x, padding, f"{call.name}/padded", fill), Formula(call)
    for along, axis in enumerate(axes, start=1):
        parts = [
            strided_slice(call.program, y, {along: (i * axis.dilation, axis.stride, axis.output)}, f"{call.name}/{i}")
            for i in range(axis.places)
        ]
        y = reduce(lambda a, b: f("MAXIMUM", a, b), parts)
    return y


@translates("AveragePool")
def average_pool(call: Call) -> None:
    """The sum of a window over the number of its pixels, with or without the pixels of the padding.

    SAME leaves padding out, VALID has none. Every other input is padded with zeros, and each pixel of the result is
    multiplied by (pixels of the window) / (pixels that count).
    """
    x, axes = _axes(call)
    included = bool(call.attribute("count_include_pad", 0))
    if any(axis.dilation > 1 for axis in axes):
        total = _window_sum(call, x, axes)
        h, w = (_counted(axis, included) for axis in axes)
        factor = (1 / np.outer(h, w)).astype(np.float32)[None, :, :, None]
        constant = call.program.constant(f"{call.name}/counts", factor)
        call.finish(call.program.emit("MUL", [total, constant], total.shape, call.name), NHWC)
        return
    placement = place(*axes)
    if placement.padding == "SAME" and included:
        placement = padded(*axes)
    x = call.program.pad(x, ((0, 0), *placement.explicit, (0, 0)), f"{call.name}/padded")
    y = _pool(call, "AVERAGE_POOL_2D", x, axes, placement)
    if any(map(sum, placement.explicit)):
        h, w = (_counted(axis, included) for axis in axes)
        factor = (axes[0].window * axes[1].window / np.outer(h, w)).astype(np.float32)
        if not np.all(factor == 1):
            correction = call.program.constant(f"{call.name}/correction", factor[None, :, :, None])
            y = call.program.emit("MUL", [y, correction], y.shape, call.name)
    call.finish(y, NHWC)


@translates("LpPool")
def lp_pool(call: Call) -> None:
    """(|x|^p summed over the window) ^ (1/p)."""
    p = int(call.attribute("p", 2))
    x, axes = _axes(call)
    f = Formula(call)
    total = _window_sum(call, _powered(f, x, p), axes)
    call.finish(_root(f, total, p), NHWC)


@translates("GlobalLpPool")
def global_lp_pool(call: Call) -> None:
    """(|x|^p summed over all pixels) ^ (1/p)."""
    p, x, f = int(call.attribute("p", 2)), call.value(), Formula(call)
    places = [x.axis(a) for a in range(2, len(x.order))]
    call.finish(_root(f, f.reduce("SUM", _powered(f, x.tensor, p), places), p), x.order)


def _powered(f: Formula, x: Tensor, p: int) -> Tensor:
    return f("MUL", x, x) if p == 2 else f("ABS", x) if p == 1 else f("POW", f("ABS", x), float(p))


def _root(f: Formula, x: Tensor, p: int) -> Tensor:
    return f("SQRT", x) if p == 2 else x if p == 1 else f("POW", x, 1 / p)


def _window_sum(call: Call, x: Tensor, axes: tuple[Axis, Axis]) -> Tensor:
    """The sum of each window: a depthwise convolution by ones."""
    h, w = axes
    ones = np.ones((x.shape[3], 1, h.places, w.places), np.float32)
    geometry = Geometry((h.stride, w.stride), (h.dilation, w.dilation), padded(h, w).explicit)
    filters = Filters(ones, f"{call.name}/ones", groups=x.shape[3])
    return convolve(call.program, x, filters, geometry, f"{call.name}/sum")


@translates("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> None:
    """MEAN or REDUCE_MAX over the pixels: [N, C, H, W] -> [N, C, 1, 1]."""
    if call.rank() != 4:
        call.refuse(f"an input of rank {call.rank()} is not supported", "use 2-D feature maps")
    x = call.value(0, NHWC).tensor
    code = "MEAN" if call.node.op_type == "GlobalAveragePool" else "REDUCE_MAX"
    axes = call.program.integers(f"{call.name}/axes", [1, 2])
    y = call.program.emit(code, [x, axes], (x.shape[0], 1, 1, x.shape[3]), call.name, keepDims=True)
    call.finish(y, NHWC)


def _axes(call: Call) -> tuple[Tensor, tuple[Axis, Axis]]:
    window = tuple(int(k) for k in call.attribute("kernel_shape"))
    if len(window) != 2 or call.rank() != 4:
        call.refuse(f"a {len(window)}-D pool is not supported", "use 2-D pools")
    dilation = tuple(int(d) for d in call.attribute("dilations", (1, 1)))
    dilation = tuple(d if k > 1 else 1 for d, k in zip(dilation, window, strict=True))
    stride = tuple(int(s) for s in call.attribute("strides", (1, 1)))
    x = call.value(0, NHWC).tensor
    padding = explicit_padding(call, x.shape[1:3], window, stride, dilation)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, window, strict=True)]
    if any(p < 0 or p >= span for pair, span in zip(padding, spans, strict=True) for p in pair):
        call.refuse(f"padding {padding} is not between zero and the window {window}", "make it less than the window")
    ceil = bool(call.attribute("ceil_mode", 0))
    h, w = (
        Axis(n, span, s, before, after, ceil, d)
        for n, span, s, (before, after), d in zip(x.shape[1:3], spans, stride, padding, dilation, strict=True)
    )
    if h.output < 1 or w.output < 1:
        call.refuse(f"a window of {window} does not fit an input of {x.shape[1]}x{x.shape[2]}", "use a larger input")
    return x, (h, w)


def _pool(call: Call, code: str, x: Tensor, axes: tuple[Axis, Axis], placement: Placement) -> Tensor:
    h, w = axes
    return call.program.emit(
        code,
        [x],
        (x.shape[0], h.output, w.output, x.shape[3]),
        call.name,
        padding=placement.padding,
        strideH=h.stride,
        strideW=w.stride,
        filterHeight=h.window,
        filterWidth=w.window,
    )


def _counted(axis: Axis, included: bool) -> np.ndarray:
    """How many pixels of each window count along one axis; pixels that a partial last window lacks never count."""
    start = np.arange(axis.output) * axis.stride
    first, last = (0, axis.before + axis.size + axis.after) if included else (axis.before, axis.before + axis.size)
    places = start[:, None] + axis.dilation * np.arange(axis.places)
    return ((places >= first) & (places < last)).sum(axis=1)


def _nonnegative(program: Program, x: Tensor) -> bool:
    """Whether a tensor is at least zero for every input."""
    writer = program.writer(x)
    if writer is None:
        return False
    if writer.code in {"RELU", "RELU6", "LOGISTIC"}:
        return True
    if writer.code in {"RESHAPE", "TRANSPOSE", "MAX_POOL_2D", "AVERAGE_POOL_2D", "STRIDED_SLICE", "PAD"}:
        return _nonnegative(program, writer.inputs[0])
    return False
