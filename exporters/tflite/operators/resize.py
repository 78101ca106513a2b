"""Resize in every mode.

TFLite scales by (size of the input) / (size of the output), with three ways to place pixels:

    corner    x_in = x_out * in / out                         ONNX: asymmetric
    half      x_in = (x_out + 1/2) * in / out - 1/2           ONNX: half_pixel, pytorch_half_pixel
    aligned   x_in = x_out * (in - 1) / (out - 1)             ONNX: align_corners

For every pixel of the output, ONNX's place in the input is computed here, and TFLite's way with the same places is
taken. If there is no such way (cubic, antialiasing, other coordinates), each axis is interpolated by ``resampling``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.resampling import interpolation, resample
from edgekron.exporters.tflite.translation import Call, axes_of

#: TFLite's ways, the first of which is taken where several read the same pixels.
_WAYS = ("corner", "half", "aligned")
#: ONNX's coordinates that one of the ways may read.
_PLACED = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


@translates("Resize")
def resize(call: Call) -> None:
    """One operator if it reads the same pixels, else each axis by the matrix of its interpolation."""
    if call.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        call.refuse("it crops as it resizes", "crop with Slice before")
    shape = call.value().shape
    sizes, scales = _target(call, shape)
    changed = [axis for axis, (n, size, s) in enumerate(zip(shape, sizes, scales, strict=True)) if (n, s) != (size, 1)]
    way = _way(call, shape[2:], sizes[2:], scales[2:]) if len(shape) == 4 and not {0, 1} & set(changed) else None
    if way is not None:
        x = call.value(0, NHWC).tensor
        inputs = [x, call.program.integers(f"{call.name}/size", sizes[2:])]
        code = "RESIZE_NEAREST_NEIGHBOR" if call.attribute("mode", "nearest") == "nearest" else "RESIZE_BILINEAR"
        y = call.program.emit(
            code,
            inputs,
            (x.shape[0], *sizes[2:], x.shape[3]),
            call.name,
            halfPixelCenters=way == "half",
            alignCorners=way == "aligned",
        )
        call.finish(y, NHWC)
        return
    value = call.value()
    y = value.tensor
    # The axis that shrinks most first: the others then have less to do.
    for axis in sorted(changed, key=lambda a: sizes[a] / shape[a]):
        matrix = interpolation(call, shape[axis], sizes[axis], scales[axis])
        _put_on_pixels(call, matrix, scales[axis])
        y = resample(call.program, y, value.axis(axis), matrix, call.name)
    call.finish(y, value.order)


def _put_on_pixels(call: Call, matrix: np.ndarray, scale: float) -> None:
    """Makes every row whose output lies on a pixel exactly that pixel, in place, as linear and cubic interpolation do.

    The standard's reference rounds such a place to a hair beside the pixel, and may then weight the neighbours of the
    pixel as if the place were on the other side.
    """
    if call.attribute("coordinate_transformation_mode", "half_pixel") not in _PLACED or call.attribute("antialias", 0):
        return
    output, size = matrix.shape
    places = _coordinates(call, size, output, scale)
    pixels = np.rint(places).astype(int)
    rows = np.flatnonzero((np.abs(places - pixels) < 1e-9) & (pixels >= 0) & (pixels < size))
    matrix[rows] = np.eye(size, dtype=matrix.dtype)[pixels[rows]]


def _way(call: Call, sizes: Sequence[int], outputs: list[int], scales: list[float]) -> str | None:
    """TFLite's way that reads the same pixels; None if there is none."""
    mode = call.attribute("mode", "nearest")
    coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in ("nearest", "linear") or call.attribute("antialias", 0) or coordinates not in _PLACED:
        return None
    find = _nearest_ways if mode == "nearest" else _linear_ways
    return next(iter(find(call, sizes, outputs, scales)), None)


def _target(call: Call, shape: tuple[int, ...]) -> tuple[list[int], list[float]]:
    """The output's sizes and its scales, output over input; scales that the file states are given as stated."""
    rank = len(shape)
    axes = axes_of(call.attribute("axes") or range(rank), rank)
    sizes, scales = list(shape), [1.0] * rank
    if call.has(3) and call.constant(3, "sizes").size:
        given = [int(size) for size in call.constant(3, "sizes").ravel()]
        factors = [size / shape[axis] for axis, size in zip(axes, given, strict=True)]
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factors = [min(factors) if policy == "not_larger" else max(factors)] * len(axes)
            given = [math.floor(factor * shape[axis] + 0.5) for axis, factor in zip(axes, factors, strict=True)]
        for axis, size, factor in zip(axes, given, factors, strict=True):
            sizes[axis], scales[axis] = size, factor
    else:
        for axis, scale in zip(axes, call.constant(2, "scales").ravel(), strict=True):
            sizes[axis], scales[axis] = math.floor(shape[axis] * float(scale)), float(scale)
    if min(sizes) < 1:
        call.refuse(f"nothing is left of {list(shape)} with scales {scales}", "resize to at least one pixel")
    return sizes, scales


def _coordinates(call: Call, size: int, output: int, scale: float) -> np.ndarray:
    """The place in an axis of ``size`` at which ONNX reads each of ``output`` pixels."""
    mode = call.attribute("coordinate_transformation_mode", "half_pixel")
    x = np.arange(output, dtype=np.float64)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        # The scale places the last pixel: if the size is rounded down, that is not the last pixel of the input.
        return x * (size - 1) / (size * scale - 1) if output > 1 else np.zeros(1)
    return (x + 0.5) / scale - 0.5 if mode == "half_pixel" or output > 1 else np.zeros(1)


def _places(way: str, size: int, output: int) -> np.ndarray:
    """The place at which TFLite reads each pixel, before rounding and clamping."""
    x = np.arange(output, dtype=np.float64)
    if way == "aligned" and output > 1:
        return x * (size - 1) / (output - 1)
    scale = size / output
    return (x + 0.5) * scale - 0.5 if way == "half" else x * scale


def _linear_ways(call: Call, sizes: Sequence[int], outputs: list[int], scales: list[float]) -> list[str]:
    def same(way: str) -> bool:
        return all(
            np.allclose(_coordinates(call, n, out, s).clip(0, n - 1), _places(way, n, out).clip(0, n - 1), atol=1e-6)
            for n, out, s in zip(sizes, outputs, scales, strict=True)
        )

    return [way for way in _WAYS if same(way)]


def _nearest_ways(call: Call, sizes: Sequence[int], outputs: list[int], scales: list[float]) -> list[str]:
    rounding = _ROUNDINGS[call.attribute("nearest_mode", "round_prefer_floor")]

    def wanted(n: int, out: int, scale: float) -> np.ndarray:
        # Rounding in float64 and in float32 differ where a coordinate is a hair from a tie, so it is snapped first.
        return rounding(_coordinates(call, n, out, scale).round(6)).clip(0, n - 1)

    def given(way: str, n: int, out: int) -> np.ndarray:
        # TFLite computes in float32, and adds the half pixel without taking it away again.
        scale = np.float32(n) / np.float32(out)
        x = np.arange(out, dtype=np.float32)
        if way == "aligned" and out > 1:
            return np.floor(x * (np.float32(n - 1) / np.float32(out - 1)) + np.float32(0.5)).clip(0, n - 1)
        return np.floor((x + np.float32(0.5)) * scale if way == "half" else x * scale).clip(0, n - 1)

    def same(way: str) -> bool:
        cases = zip(sizes, outputs, scales, strict=True)
        return all(np.array_equal(wanted(n, out, s), given(way, n, out)) for n, out, s in cases)

    return [way for way in _WAYS if same(way)]
