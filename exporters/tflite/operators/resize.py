"""Resize of feature maps: nearest and linear.

TFLite scales by (size of the input) / (size of the output), with three ways to place pixels:

    corner    x_in = x_out * in / out                         ONNX: asymmetric
    half      x_in = (x_out + 1/2) * in / out - 1/2           ONNX: half_pixel, pytorch_half_pixel
    aligned   x_in = x_out * (in - 1) / (out - 1)             ONNX: align_corners

What ONNX would read for every pixel of the output is computed here, and the way that reads the same is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgekron.exporters.tflite.layout import NHWC
from edgekron.exporters.tflite.registry import translates
from edgekron.exporters.tflite.translation import Call, axes_of

#: Options of the operators for each way.
_WAYS: dict[str, dict[str, bool]] = {
    "corner": {},
    "half": {"halfPixelCenters": True},
    "aligned": {"alignCorners": True},
}
_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


@translates("Resize")
def resize(call: Call) -> None:
    """[N, C, H, W] to another H and W."""
    mode = call.attribute("mode", "nearest")
    if call.rank() != 4 or mode not in ("nearest", "linear"):
        call.refuse(f"a resize of rank {call.rank()} in mode {mode!r} has no TFLite operator", "use nearest or linear")
    if call.attribute("antialias", 0):
        call.refuse("TFLite has no antialiasing", "resize without it, or pool before")
    x = call.value(0, NHWC).tensor
    sizes, scales = _target(call, (x.shape[0], x.shape[3], x.shape[1], x.shape[2]))
    if sizes[:2] != [x.shape[0], x.shape[3]]:
        call.refuse(f"it resizes the batch or the channels, to {sizes}", "resize height and width only")
    if mode == "nearest":
        code, ways = "RESIZE_NEAREST_NEIGHBOR", _nearest_ways(call, x.shape[1:3], sizes[2:], scales[2:])
    else:
        code, ways = "RESIZE_BILINEAR", _linear_ways(call, x.shape[1:3], sizes[2:], scales[2:])
    if not ways:
        wanted = call.attribute("coordinate_transformation_mode", "half_pixel")
        call.refuse(
            f"{mode} from {list(x.shape[1:3])} to {sizes[2:]} with {wanted!r} coordinates, scales {scales[2:]}, reads "
            "other pixels than any of TFLite's ways",
            "resize by whole factors, or to given sizes",
        )
    inputs = [x, call.program.integers(f"{call.name}/size", sizes[2:])]
    y = call.program.emit(code, inputs, (x.shape[0], *sizes[2:], x.shape[3]), call.name, **_WAYS[ways[0]])
    call.finish(y, NHWC)


def _target(call: Call, shape: tuple[int, ...]) -> tuple[list[int], list[float]]:
    """The sizes of the output, and how many times larger it is, by the file's own scales where it has some."""
    axes = axes_of(call.attribute("axes") or range(4), 4)
    sizes, scales = list(shape), [1.0] * 4
    if call.has(3) and call.constant(3, "sizes").size:
        if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            call.refuse("it keeps the aspect ratio", "give the sizes that it results in")
        for axis, size in zip(axes, call.constant(3, "sizes").ravel(), strict=True):
            sizes[axis], scales[axis] = int(size), int(size) / shape[axis]
    else:
        for axis, scale in zip(axes, call.constant(2, "scales").ravel(), strict=True):
            sizes[axis], scales[axis] = math.floor(shape[axis] * float(scale)), float(scale)
    if min(sizes) < 1:
        call.refuse(f"nothing is left of {list(shape)} with scales {scales}", "resize to at least one pixel")
    return sizes, scales


def _coordinates(call: Call, size: int, output: int, scale: float) -> np.ndarray:
    """Where ONNX reads each of ``output`` pixels in an axis of ``size``."""
    mode = call.attribute("coordinate_transformation_mode", "half_pixel")
    x = np.arange(output, dtype=np.float64)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (size - 1) / (output - 1) if output > 1 else np.zeros(1)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and output > 1):
        return (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(1)
    return call.refuse(f"coordinates {mode!r} have no TFLite operator", "use half_pixel, align_corners or asymmetric")


def _places(way: str, size: int, output: int) -> np.ndarray:
    """Where TFLite reads each pixel, before it is rounded or clamped."""
    x = np.arange(output, dtype=np.float64)
    if way == "aligned" and output > 1:
        return x * (size - 1) / (output - 1)
    scale = size / output
    return (x + 0.5) * scale - 0.5 if way == "half" else x * scale


def _linear_ways(call: Call, sizes: Any, outputs: list[int], scales: list[float]) -> list[str]:
    def same(way: str) -> bool:
        return all(
            np.allclose(_coordinates(call, n, out, s).clip(0, n - 1), _places(way, n, out).clip(0, n - 1), atol=1e-6)
            for n, out, s in zip(sizes, outputs, scales, strict=True)
        )

    return [way for way in _WAYS if same(way)]


def _nearest_ways(call: Call, sizes: Any, outputs: list[int], scales: list[float]) -> list[str]:
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
