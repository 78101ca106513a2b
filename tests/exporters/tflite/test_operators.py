"""Every other operator, one attribute combination a row, against ONNX Runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgekron.exporters.tflite.read import Contents

Check = Callable[..., Contents]
IMAGE = (2, 3, 7, 8)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


@pytest.mark.parametrize("shape", [IMAGE, (2, 5), (2, 5, 3)])
@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("Relu", {}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("HardSwish", {}),
        ("Abs", {}),
        ("Neg", {}),
        ("Exp", {}),
        ("LeakyRelu", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Elu", {}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("HardSigmoid", {}),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        ("Identity", {}),
        ("Softmax", {}),
        ("Softmax", {"axis": 1}),
        ("Softmax", {"axis": 0}),
    ],
)
def test_activation(agree_one: Check, operator: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> None:
    agree_one(operator, shape, scale=3.0, **attributes)


def test_square_root_and_logarithm(agree: Check) -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Add", ["a", "one"], ["p"]),
        helper.make_node("Sqrt", ["p"], ["y"]),
        helper.make_node("Log", ["p"], ["z"]),
    ]
    agree(nodes, {"one": scalar(1)}, IMAGE, ["y", "z"])


@pytest.mark.parametrize(
    ("low", "high", "codes"),
    [
        (0, 6, ["RELU6"]),
        (-1, 1, ["RELU_N1_TO_1"]),
        (0, None, ["RELU"]),
        (0, 3.4028234663852886e38, ["RELU"]),
        (0, 1, ["MAXIMUM", "MINIMUM"]),
        (None, 0.5, ["MINIMUM"]),
        (-0.5, None, ["MAXIMUM"]),
    ],
)
def test_clip(agree_one: Check, low: float | None, high: float | None, codes: list[str]) -> None:
    bounds = [None if b is None else scalar(b) for b in (low, high)]
    while bounds and bounds[-1] is None:
        bounds.pop()
    assert agree_one("Clip", IMAGE, *bounds, scale=4.0).operators == codes


def test_clip_with_attributes(agree_one: Check) -> None:
    assert agree_one("Clip", IMAGE, opset=6, min=0.0, max=6.0, scale=4.0).operators == ["RELU6"]


@pytest.mark.parametrize("slope", [(3, 1, 1), (1,), (3, 7, 8), (1, 1, 8)])
def test_prelu(agree_one: Check, slope: tuple[int, ...]) -> None:
    agree_one("PRelu", IMAGE, floats(*slope))


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize(
    ("shape", "constant"),
    [
        (IMAGE, ()),
        (IMAGE, (1,)),
        (IMAGE, (8,)),
        (IMAGE, (7, 1)),
        (IMAGE, (3, 1, 1)),
        (IMAGE, (1, 3, 1, 8)),
        (IMAGE, (2, 3, 7, 8)),
        ((2, 1, 7, 1), (3, 1, 8)),
        ((2, 5), (5,)),
        ((2, 5), (1,)),
        ((2, 5), (3, 2, 5)),
        ((2, 5), (2, 3, 1, 5)),
        ((2, 3, 4), (3, 1)),
        ((1, 2, 3, 4, 5), (3, 1, 5)),
    ],
)
def test_arithmetic_with_a_constant(
    agree: Check, operator: str, shape: tuple[int, ...], constant: tuple[int, ...]
) -> None:
    array = floats(*constant)
    array = np.sign(array) * (np.abs(array) + 0.5)
    nodes = [helper.make_node(operator, ["x", "c"], ["y"])]
    outputs = ["y"]
    if operator in {"Sub", "Max"}:
        nodes.append(helper.make_node(operator, ["c", "x"], ["z"]))
        outputs.append("z")
    agree(nodes, {"c": array}, shape, outputs)


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Max"])
def test_arithmetic_of_activations_in_different_orders(agree: Check, operator: str) -> None:
    """x [2, 4, 4, 4], its transposes, and its means: equal sizes hide no mistake of axes."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["x"], ["s"], perm=[0, 3, 2, 1]),
        helper.make_node("ReduceMean", ["x", "hw"], ["m"], keepdims=1),
        helper.make_node("ReduceMean", ["x", "n"], ["flat"], keepdims=0),
        *(helper.make_node(operator, ["x", other], [f"y_{other}"]) for other in ("t", "s", "m", "flat")),
        helper.make_node(operator, ["t", "s"], ["y_ts"]),
        helper.make_node(operator, ["flat", "t"], ["y_ft"]),
    ]
    names = ["y_t", "y_s", "y_m", "y_flat", "y_ts", "y_ft"]
    agree(nodes, {"hw": ints(2, 3), "n": ints(0)}, (2, 4, 4, 4), names)


def test_arithmetic_of_three_operands(agree: Check) -> None:
    nodes = [helper.make_node("Max", ["x", "a", "b"], ["y"])]
    agree(nodes, {"a": floats(3, 1, 1), "b": floats(8, seed=2)}, IMAGE)


@pytest.mark.parametrize("shape", [IMAGE, (4, 3), (2, 3, 5)])
def test_batch_normalization(agree_one: Check, shape: tuple[int, ...]) -> None:
    scale, bias, mean = (floats(3, seed=s) for s in range(3))
    agree_one("BatchNormalization", shape, scale, bias, mean, np.abs(floats(3)) + 0.1, epsilon=1e-3)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 6)])
def test_pools(agree: Check, operator: str, size: tuple[int, int]) -> None:
    nodes = []
    for kernel, stride, pads, ceil, included in itertools.product(
        [(2, 2), (3, 3), (3, 2)],
        [(1, 1), (2, 2), (3, 1)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)],
        [0, 1],
        [0, 1],
    ):
        if operator == "MaxPool" and included:
            continue
        attributes = {"count_include_pad": included} if operator == "AveragePool" else {}
        name = f"k{kernel}s{stride}p{pads}c{ceil}i{included}"
        nodes.append(
            helper.make_node(
                operator,
                ["x"],
                [name],
                kernel_shape=kernel,
                strides=stride,
                pads=pads,
                ceil_mode=ceil,
                **attributes,
            )
        )
    agree(nodes, {}, (2, 3, *size), [node.output[0] for node in nodes])


def test_maximum_of_rectified_input_is_padded_by_zero(agree: Check) -> None:
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MaxPool", ["r"], ["y"], **attributes)]
    assert agree(nodes, {}, (1, 3, 8, 8)).operators == ["RELU", "PAD", "MAX_POOL_2D"]


def test_maximum_of_any_input_is_padded_by_minus_infinity(agree_one: Check) -> None:
    contents = agree_one("MaxPool", (1, 3, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    assert contents.operators == ["PADV2", "MAX_POOL_2D"]


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(agree_one: Check, operator: str) -> None:
    agree_one(operator, IMAGE)


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [(2, 3), (1,), (-1,), (0, 2), (3, 1), (1, 2, 3)])
def test_reductions(agree_one: Check, operator: str, keep: int, axes: tuple[int, ...]) -> None:
    agree_one(operator, IMAGE, ints(*axes), keepdims=keep)


def test_reduction_with_attribute_axes_and_without_axes(agree_one: Check) -> None:
    agree_one("ReduceMean", IMAGE, opset=13, axes=[2, 3], keepdims=0)
    agree_one("ReduceMean", IMAGE)
    assert agree_one("ReduceMean", IMAGE, noop_with_empty_axes=1).operators == ["RESHAPE"]


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        (IMAGE, (2, -1)),
        (IMAGE, (0, 0, -1)),
        (IMAGE, (2, 3, 56)),
        (IMAGE, (-1,)),
        (IMAGE, (2, 21, 8)),
        (IMAGE, (2, 3, 8, 7)),
        (IMAGE, (6, 7, 8, 1)),
        ((2, 6, 4, 5), (2, 2, 3, 4, 5)),
        ((2, 6, 4, 5), (2, 3, 2, 4, 5)),
        ((2, 6, 4, 5), (2, 6, 2, 2, 5)),
        ((2, 6, 1, 1), (2, 6)),
        ((2, 12), (2, 3, 2, 2)),
        ((2, 12), (2, 12, 1, 1)),
        ((1, 6, 4, 5), (6, 4, 5)),
        ((2, 1, 4, 5), (2, 4, 5)),
    ],
)
def test_reshape_keeps_the_order_of_values(agree_one: Check, shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    agree_one("Reshape", shape, ints(*target))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1])
def test_flatten(agree_one: Check, axis: int) -> None:
    agree_one("Flatten", IMAGE, axis=axis)


def test_flatten_of_single_pixels_moves_nothing(agree_one: Check) -> None:
    assert agree_one("Flatten", (2, 6, 1, 1)).operators == ["RESHAPE"]


@pytest.mark.parametrize("axes", [(1,), (2, 3), (0, -1)])
def test_unsqueeze(agree_one: Check, axes: tuple[int, ...]) -> None:
    agree_one("Unsqueeze", (3, 4), ints(*axes))


@pytest.mark.parametrize(("shape", "axes"), [((2, 3, 1, 1), (2, 3)), ((2, 1, 4, 5), (1,)), ((2, 3, 1, 5), (-2,))])
def test_squeeze(agree_one: Check, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    agree_one("Squeeze", shape, ints(*axes))
    agree_one("Squeeze", shape)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_transpose(agree_one: Check, order: tuple[int, ...]) -> None:
    agree_one("Transpose", IMAGE, perm=list(order))


def test_transpose_then_convolution_reads_the_file_as_it_lies(agree: Check) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["t"], ["u"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["u", "w"], ["y"]),
    ]
    assert agree(nodes, {"w": floats(4, 3, 3, 3)}, IMAGE).operators == ["CONV_2D"]


def test_channel_shuffle_is_one_transpose(agree: Check) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["b", "joined"], ["y"]),
    ]
    contents = agree(nodes, {"split": ints(-1, 2, 3, 4, 5), "joined": ints(0, 6, 4, 5)}, (2, 6, 4, 5))
    assert contents.operators == ["RESHAPE", "TRANSPOSE", "RESHAPE"]


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_concat(agree: Check, axis: int) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 2, 1]),
        helper.make_node("Concat", ["x", "t", "x", "c"], ["y"], axis=axis),
    ]
    agree(nodes, {"c": floats(2, 4, 4, 4)}, (2, 4, 4, 4))


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ((0,), (4,), (2,), None),
        ((1, 2), (3, 100), (1, 3), (1, 2)),
        ((-3,), (-1,), (3,), (1,)),
        ((0, 0), (2**31, 2**31), (2, 3), (2, 2)),
        ((1, 1), (2**63 - 1, 2**63 - 1), (2, 3), (2, 4)),
        ((-1,), (-(2**63),), (3,), (-1,)),
        ((5, 6), (0, 1), (2, 3), (-2, -3)),
        ((0, 0, 1, 2), (1, 2, 5, 7), None, None),
        ((-1,), (-9,), (-1,), (-2,)),
    ],
)
@pytest.mark.parametrize("size", [(6, 8), (7, 8)])
def test_slice(
    agree_one: Check,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None,
    steps: tuple[int, ...] | None,
    size: tuple[int, int],
) -> None:
    optional = [None if v is None else ints(*v) for v in (axes, steps)]
    while optional and optional[-1] is None:
        optional.pop()
    agree_one("Slice", (2, 3, *size), ints(*starts), ints(*ends), *optional)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 6)])
def test_subsampling_and_channel_padding(agree: Check, size: tuple[int, int]) -> None:
    """The shortcut without parameters of small residual networks."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "end", "two", "by"], ["a"]),
        helper.make_node("Slice", ["a", "zero", "end", "three", "by"], ["b"]),
        helper.make_node("Pad", ["b", "pads"], ["y"]),
    ]
    constants = {
        "zero": ints(0),
        "end": ints(2**63 - 1),
        "two": ints(2),
        "three": ints(3),
        "by": ints(2),
        "pads": ints(0, 2, 0, 0, 0, 3, 0, 0),
    }
    contents = agree(nodes, constants, (2, 3, *size))
    even = size[0] % 2 == 0 and size[1] % 2 == 0
    expected = ["RESHAPE", "STRIDED_SLICE", "RESHAPE", "PAD"] if even else ["STRIDED_SLICE", "PAD"]
    assert contents.operators == expected


@pytest.mark.parametrize(
    ("pads", "attributes", "inputs"),
    [
        ((0, 0, 1, 2, 0, 0, 3, 4), {}, ()),
        ((0, 1, 0, 0, 0, 2, 0, 0), {}, (scalar(1.5),)),
        ((1, 1, 1, 1, 1, 1, 1, 1), {"mode": "constant"}, (scalar(-2),)),
        ((0, 0, 1, 2, 0, 0, 3, 4), {"mode": "reflect"}, ()),
        ((0, 0, -1, 2, 0, 0, -2, -3), {}, ()),
        ((1, 2, 3, 4), {}, (scalar(0.5), ints(2, 3))),
        ((0, 0, 0, 0, 0, 0, 0, 0), {}, ()),
    ],
)
def test_pad(
    agree_one: Check, pads: tuple[int, ...], attributes: dict[str, Any], inputs: tuple[np.ndarray, ...]
) -> None:
    agree_one("Pad", IMAGE, ints(*pads), *inputs, **attributes)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("c", [None, (4,), (1, 4), (1,), (), (3, 4), (3, 1)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0)])
def test_gemm(agree_one: Check, transposed: int, c: tuple[int, ...] | None, alpha: float, beta: float) -> None:
    weight = floats(4, 5) if transposed else floats(5, 4)
    inputs = [weight] if c is None else [weight, floats(*c)]
    agree_one("Gemm", (3, 5), *inputs, transB=transposed, alpha=alpha, beta=beta)


def test_gemm_of_the_transpose(agree_one: Check) -> None:
    agree_one("Gemm", (5, 3), floats(5, 4), transA=1)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_matmul_by_a_matrix_on_either_side(agree: Check, shape: tuple[int, ...]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "right"], ["y"]),
        helper.make_node("MatMul", ["left", "x"], ["z"]),
    ]
    agree(nodes, {"right": floats(5, 6), "left": floats(7, shape[-2])}, shape, ["y", "z"])


def test_shape_arithmetic_is_folded(agree: Check) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    contents = agree(nodes, {"zero": ints(0), "rest": ints(-1)}, (2, 3, 1, 4))
    assert set(contents.operators) <= {"RESHAPE", "TRANSPOSE"}


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize(
    ("indices", "code"),
    [(3, None), (-1, None), ([2], None), ([0, 2, 4], None), ([4, 0, 1], "GATHER"), ([1, 1, -1, 3], "GATHER")],
)
def test_gather(agree_one: Check, axis: int, indices: Any, code: str | None) -> None:
    contents = agree_one("Gather", (2, 5, 6, 7), np.array(indices, np.int64), axis=axis)
    assert ("GATHER" in contents.operators) == (code == "GATHER")


@pytest.mark.parametrize("shape", [IMAGE, (2, 3, 9)])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_instance_normalization(agree_one: Check, shape: tuple[int, ...], epsilon: float) -> None:
    agree_one("InstanceNormalization", shape, floats(3), floats(3, seed=2), epsilon=epsilon)


@pytest.mark.parametrize(
    ("shape", "axis", "bias"), [(IMAGE, -1, True), (IMAGE, 1, True), (IMAGE, 2, False), ((2, 5, 3), -1, True)]
)
def test_layer_normalization(agree_one: Check, shape: tuple[int, ...], axis: int, bias: bool) -> None:
    size = shape[axis:]
    constants = [floats(*size), floats(*size, seed=2)] if bias else [floats(*size)]
    agree_one("LayerNormalization", shape, *constants, axis=axis)


@pytest.mark.parametrize(
    ("shape", "equation", "constant"),
    [
        ((3, 5), "nc,cf->nf", (5, 4)),
        ((3, 5), "nc,fc->fn", (4, 5)),
        ((2, 3, 5), "nac,ncb->nab", (2, 5, 4)),
        ((2, 3, 4, 5), "nchw,cf->nfhw", (3, 6)),
        ((2, 3, 4, 5), "nchw,nchv->nhwv", (2, 3, 4, 6)),
        ((2, 3, 4, 5), "nchw->nwc", None),
        ((2, 3, 4, 5), "nchw,k->nck", (6,)),
    ],
)
def test_einsum(agree: Check, shape: tuple[int, ...], equation: str, constant: tuple[int, ...] | None) -> None:
    """With a constant, and with the same computed."""
    nodes = [helper.make_node("Einsum", ["x"] if constant is None else ["x", "c"], ["y"], equation=equation)]
    if constant is None:
        agree(nodes, {}, shape)
        return
    nodes += [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Add", ["c", "m"], ["d"]),
        helper.make_node("Einsum", ["x", "d"], ["z"], equation=equation),
    ]
    agree(nodes, {"c": floats(*constant)}, shape, ["y", "z"])


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4, 6), (3, 6, 5)), ((2, 4), (4,)), ((4,), (4, 3))],
)
def test_product_of_two_activations(agree: Check, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Add", ["a", "m"], ["left"]),
        helper.make_node("Mul", ["b", "m"], ["right"]),
        helper.make_node("MatMul", ["left", "right"], ["y"]),
        helper.make_node("MatMul", ["a", "right"], ["z"]),
        helper.make_node("MatMul", ["left", "b"], ["w"]),
    ]
    agree(nodes, {"a": floats(*left), "b": floats(*right, seed=2)}, (2, 3), ["y", "z", "w"])


@pytest.mark.parametrize(("operator", "before"), [("LSTM", 0), ("GRU", 0), ("GRU", 1), ("RNN", 0)])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("started", [False, True])
def test_recurrent(agree: Check, operator: str, direction: str, before: int, started: bool) -> None:
    """Seven steps of a batch of three; all outputs. ``before`` is GRU's linear_before_reset."""
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator], 2 if direction == "bidirectional" else 1
    constants = {
        "w": floats(ways, gates * 6, 4) / 2,
        "r": floats(ways, gates * 6, 6, seed=2) / 2,
        "b": floats(ways, 2 * gates * 6, seed=3),
        "h": floats(ways, 3, 6, seed=4),
        "c": floats(ways, 3, 6, seed=5),
    }
    inputs = ["x", "w", "r", "b"]
    if started:
        inputs += ["", "h", "c"] if operator == "LSTM" else ["", "h"]
    outputs = ["y", "last", "cell"] if operator == "LSTM" else ["y", "last"]
    attributes = {"linear_before_reset": 1} if before else {}
    node = helper.make_node(operator, inputs, outputs, direction=direction, hidden_size=6, **attributes)
    agree([node], constants, (7, 3, 4), outputs)


@pytest.mark.parametrize("mode", ["edge", "wrap", "reflect"])
@pytest.mark.parametrize("pads", [(0, 0, 1, 2, 0, 0, 3, 0), (0, 2, 0, 0, 0, 1, 5, 6), (0, 0, -1, 3, 0, 0, 2, -2)])
def test_pad_by_its_own_values(agree_one: Check, mode: str, pads: tuple[int, ...]) -> None:
    agree_one("Pad", IMAGE, ints(*pads), mode=mode)


def test_wrap_more_than_once_around(agree_one: Check) -> None:
    agree_one("Pad", (2, 3, 3, 2), ints(0, 0, 7, 4, 0, 0, 8, 5), mode="wrap")


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 2, 1)])
@pytest.mark.parametrize("ceil", [0, 1])
def test_dilated_pools(
    agree_one: Check, operator: str, stride: tuple[int, int], pads: tuple[int, ...], ceil: int
) -> None:
    attributes = {"count_include_pad": 1} if operator == "AveragePool" and sum(pads) else {}
    agree_one(
        operator,
        (2, 3, 9, 11),
        kernel_shape=[3, 2],
        dilations=[2, 3],
        strides=stride,
        pads=pads,
        ceil_mode=ceil,
        opset=22,
        **attributes,
    )


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attributes", [{"axis": 1}, {"axis": -1, "keepdims": 0}, {"axis": 2, "select_last_index": 1}])
def test_indices_of_the_greatest(agree: Check, operator: str, attributes: dict[str, int]) -> None:
    """Of rounded values, among which many are equal."""
    nodes = [
        helper.make_node("Round", ["x"], ["r"]),
        helper.make_node(operator, ["r"], ["i"], **attributes),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ]
    agree(nodes, {}, IMAGE)


@pytest.mark.parametrize("operator", ["Erf", "Softplus", "Mish", "Selu", "Celu", "Softsign", "ThresholdedRelu"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_formulas(agree_one: Check, operator: str, scale: float) -> None:
    agree_one(operator, IMAGE, scale=scale)


@pytest.mark.parametrize("operator", ["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"])
@pytest.mark.parametrize("axes", [(1,), (2, 3), None])
def test_reductions_by_formula(agree_one: Check, operator: str, axes: tuple[int, ...] | None) -> None:
    inputs = [] if axes is None else [ints(*axes)]
    for keep in (0, 1):
        agree_one(operator, (2, 3, 4, 5), *inputs, keepdims=keep, scale=30.0 if operator == "ReduceLogSumExp" else 1.0)


def test_an_operator_that_the_standard_defines(agree_one: Check) -> None:
    agree_one("MeanVarianceNormalization", IMAGE)
    agree_one("Shrink", IMAGE, lambd=0.4, bias=0.1)
    agree_one("GroupNormalization", (2, 4, 5, 6), floats(4), floats(4, seed=2), num_groups=2, opset=21)
