"""Conv over kernels, strides, dilations, paddings, groups and sizes: 2,016 convolutions against ONNX Runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from edgekron.exporters.tflite.read import Contents

KERNELS = [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (1, 3), (3, 2)]
STRIDES = [(1, 1), (2, 2), (2, 1), (3, 2)]
DILATIONS = [(1, 1), (2, 2), (1, 3)]
GROUPS = {"dense": (1, 6), "grouped": (2, 6), "depthwise": (4, 4), "depthwise x2": (4, 8)}
SIZES = [(19, 19), (20, 21)]


def paddings(kernel: tuple[int, int], dilation: tuple[int, int]) -> list[list[int]]:
    """None, half of the window on every side, and an asymmetric one: top, left, bottom, right."""
    h, w = (d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return [[0, 0, 0, 0], [h, w, h, w], [1, 0, 2, 3]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_geometry_equals_onnx_runtime(
    agree: Callable[..., Contents],
    rng: np.random.Generator,
    kernel: tuple[int, int],
    kind: str,
    size: tuple[int, int],
) -> None:
    groups, features = GROUPS[kind]
    constants = {
        "w.weight": rng.standard_normal((features, 4 // groups, *kernel)).astype(np.float32),
        "b": rng.standard_normal(features).astype(np.float32),
    }
    nodes, outputs = [], []
    for stride, dilation in itertools.product(STRIDES, DILATIONS):
        for index, pads in enumerate(paddings(kernel, dilation)):
            name = f"s{stride}d{dilation}p{pads}{index}"
            inputs = ["x", "w.weight", "b"] if index else ["x", "w.weight"]
            attributes = {"strides": stride, "dilations": dilation, "pads": pads, "group": groups}
            nodes.append(helper.make_node("Conv", inputs, [name], name=name, **attributes))
            outputs.append(name)
    contents = agree(nodes, constants, (2, 4, *size), outputs)
    code = "DEPTHWISE_CONV_2D" if groups == 4 else "CONV_2D"
    assert contents.histogram[code] == len(nodes)
    # The kernel is stored once for all of them.
    assert contents.constant_bytes < 8 * constants["w.weight"].size + 20_000


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3])
def test_automatic_padding(
    agree_one: Callable[..., Contents],
    rng: np.random.Generator,
    mode: str,
    size: tuple[int, int],
    stride: int,
    kernel: int,
) -> None:
    weight = rng.standard_normal((3, 2, kernel, kernel)).astype(np.float32)
    agree_one("Conv", (1, 2, *size), weight, auto_pad=mode, strides=[stride] * 2)


@pytest.mark.parametrize(
    ("size", "stride", "explicit"),
    [((8, 8), 1, 0), ((8, 8), 2, 1), ((7, 7), 2, 0), ((7, 8), 2, 1)],
    ids=["stride 1", "even", "odd", "mixed"],
)
def test_padding_is_explicit_only_where_same_differs(
    agree_one: Callable[..., Contents],
    rng: np.random.Generator,
    size: tuple[int, int],
    stride: int,
    explicit: int,
) -> None:
    weight = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    contents = agree_one("Conv", (1, 2, *size), weight, pads=[1, 1, 1, 1], strides=[stride] * 2)
    assert contents.histogram["PAD"] == explicit


def test_one_input_channel_is_no_depthwise_convolution(
    agree_one: Callable[..., Contents], rng: np.random.Generator
) -> None:
    weight = rng.standard_normal((5, 1, 3, 3)).astype(np.float32)
    assert agree_one("Conv", (2, 1, 6, 6), weight).operators == ["CONV_2D"]
