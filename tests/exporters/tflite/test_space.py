"""Operators that change height and width, or exchange them with channels: against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgekron.exporters.tflite.read import Contents

Check = Callable[..., Contents]
IMAGE = (2, 3, 7, 8)
#: Coordinates, rounding and factors that read other pixels than any of TFLite's three ways.
NEAREST_GATHERED = {
    ("half_pixel", "floor", (2, 2)),
    ("half_pixel", "floor", (3, 2)),
    ("half_pixel", "floor", (4, 1)),
    ("asymmetric", "round_prefer_floor", (3, 2)),
    ("asymmetric", "round_prefer_floor", (4, 1)),
    ("align_corners", "floor", (2, 2)),
    ("align_corners", "floor", (3, 2)),
    ("align_corners", "floor", (4, 1)),
    ("align_corners", "floor", (1, 0.5)),
    ("align_corners", "round_prefer_floor", (3, 2)),
}


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def scales(h: float, w: float) -> np.ndarray:
    return np.array([1, 1, h, w], np.float32)


@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("size", [(14, 16), (7, 16), (21, 32), (14, 4), (7, 8), (9, 5), (1, 16)])
def test_resize_linear(agree_one: Check, coordinates: str, size: tuple[int, int]) -> None:
    sizes = ints(2, 3, *size)
    attributes: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    contents = agree_one("Resize", IMAGE, None, None, sizes, **attributes)
    own = coordinates == "pytorch_half_pixel" and size[0] == 1
    assert ("RESIZE_BILINEAR" in contents.operators) != own


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("rounding", ["floor", "round_prefer_floor"])
@pytest.mark.parametrize("factors", [(2, 2), (3, 2), (4, 1), (1, 0.5)])
def test_resize_nearest(agree_one: Check, coordinates: str, rounding: str, factors: tuple[float, float]) -> None:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    contents = agree_one("Resize", IMAGE, None, scales(*factors), **attributes)
    # torch's own nearest is one operator.
    gathered = (coordinates, rounding, factors) in NEAREST_GATHERED
    assert ("RESIZE_NEAREST_NEIGHBOR" in contents.operators) != gathered


@pytest.mark.parametrize(
    ("attributes", "target"),
    [
        ({"mode": "cubic"}, scales(2, 2)),
        ({"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}, scales(1.5, 0.7)),
        ({"mode": "cubic", "coordinate_transformation_mode": "align_corners"}, scales(2, 3)),
        ({"mode": "linear", "antialias": 1}, scales(0.5, 0.5)),
        ({"mode": "cubic", "antialias": 1}, scales(0.4, 0.6)),
        ({"mode": "linear"}, scales(1.3, 1)),
        ({"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, scales(1.3, 0.6)),
        ({"mode": "nearest"}, np.array([1, 2, 1, 1], np.float32)),
        ({"mode": "linear"}, np.array([1, 1, 2.5, 1], np.float32)),
    ],
)
def test_resize_by_a_matrix_for_each_axis(agree_one: Check, attributes: dict[str, Any], target: np.ndarray) -> None:
    contents = agree_one("Resize", IMAGE, None, target, **attributes)
    assert not {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"} & set(contents.operators)


@pytest.mark.parametrize("size", [(14, 7), (14, 18), (18, 21), (30, 42)])
def test_resize_cubic_where_outputs_lie_on_pixels(agree_one: Check, size: tuple[int, int]) -> None:
    """From 10 to 14, the fourth output lies on the third pixel, but for a rounding."""
    agree_one("Resize", (1, 2, 10, 6), None, None, ints(1, 2, *size), mode="cubic")


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize(("block", "channels"), [(2, 4), (2, 12), (3, 9), (3, 18)])
def test_depth_to_space(agree_one: Check, mode: str, block: int, channels: int) -> None:
    agree_one("DepthToSpace", (2, channels, 3, 4), blocksize=block, mode=mode)


@pytest.mark.parametrize(("block", "size"), [(2, (4, 6)), (3, (6, 9))])
def test_space_to_depth(agree_one: Check, block: int, size: tuple[int, int]) -> None:
    agree_one("SpaceToDepth", (2, 3, *size), blocksize=block)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("sizes", [(2, 4), (1, 2, 3)])
@pytest.mark.parametrize("given", [True, False])
def test_split(agree: Check, axis: int, sizes: tuple[int, ...], given: bool) -> None:
    names = [f"y{i}" for i in range(len(sizes))]
    if given:
        node = helper.make_node("Split", ["x", "s"], names, axis=axis)
        agree([node], {"s": ints(*sizes)}, (2, 6, 6, 6), names)
    else:
        node = helper.make_node("Split", ["x"], names, axis=axis, num_outputs=len(sizes))
        agree([node], {}, (2, 6, 6, 6), names)


#: Pads, output padding, dilation and groups of transposed convolutions.
TRANSPOSED = [
    ((0, 0, 0, 0), (0, 0), (1, 1), 1),
    ((0, 0, 0, 0), (1, 0), (1, 1), 1),
    ((1, 1, 1, 1), (0, 0), (1, 1), 1),
    ((1, 1, 1, 1), (1, 1), (1, 1), 2),
    ((0, 1, 1, 0), (0, 0), (2, 3), 1),
    ((0, 0, 0, 0), (0, 0), (1, 1), 6),
]


@pytest.mark.parametrize("window", [(3, 3), (4, 4), (2, 2), (1, 3), (5, 2)])
@pytest.mark.parametrize(
    ("stride", "pads", "extra", "dilation", "groups"),
    [
        (stride, *rest)
        for stride in [(1, 1), (2, 2), (3, 1)]
        for rest in TRANSPOSED
        if all(e < s for e, s in zip(rest[1], stride, strict=True))
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_transpose(
    agree_one: Check,
    window: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, ...],
    extra: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    bias: bool,
) -> None:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((6, 4 // min(groups, 2), *window)).astype(np.float32)
    outputs = kernel.shape[1] * groups
    vector = random.standard_normal(outputs).astype(np.float32) if bias else None
    agree_one(
        "ConvTranspose",
        (2, 6, 5, 4),
        kernel,
        vector,
        strides=stride,
        pads=pads,
        output_padding=extra,
        dilations=dilation,
        group=groups,
    )


def test_a_transposed_convolution_that_doubles_is_one_operator(agree_one: Check) -> None:
    kernel = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)
    contents = agree_one("ConvTranspose", (2, 6, 5, 4), kernel, strides=[2, 2], pads=[1, 1, 1, 1])
    assert contents.operators == ["TRANSPOSE_CONV"]


@pytest.mark.parametrize(
    ("shape", "target"), [((2, 3, 1, 1), (2, 3, 4, 5)), ((2, 1, 4, 5), (1, 3, 1, 1)), ((2, 3), (4, 2, 3))]
)
def test_expand(agree_one: Check, shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    agree_one("Expand", shape, ints(*target))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 0.5, 0.75, -1.5])
def test_power(agree: Check, exponent: float) -> None:
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Add", ["a", "one"], ["b"])]
    nodes += [helper.make_node("Pow", ["b", "e"], ["y"]), helper.make_node("Reciprocal", ["b"], ["z"])]
    agree(nodes, {"e": np.float32(exponent), "one": np.float32(0.5)}, IMAGE, ["y", "z"])
