"""Files that are quantized already are refused where they cannot be used, and folded back to float when asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters import export
from edgekron.graph import load
from edgekron.graph.passes.dequantize import quantized_operators

from .single import outputs, proto, random

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 16, 16)


class Images(CalibrationDataReader):
    def __init__(self) -> None:
        self._left = iter(np.random.default_rng(0).standard_normal((16, 1, *SHAPE)).astype(np.float32))

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._left, None)
        return None if image is None else {"x": image}


def network() -> onnx.ModelProto:
    """Layers with activations that the quantizer leaves out, and every operator that it turns into integers."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4, name="c1"),
        make("Relu", ["a"], ["ar"], name="r1"),
        make("Conv", ["ar", "w2", "b2"], ["b"], pads=[1] * 4, name="c2"),
        make("Clip", ["b", "low", "high"], ["br"], name="clip"),
        make("Add", ["br", "ar"], ["s"], name="add"),
        make("MaxPool", ["s"], ["m"], kernel_shape=[2, 2], strides=[2, 2], name="mp"),
        make("Conv", ["m", "w3"], ["d"], name="c3"),
        make("LeakyRelu", ["d"], ["dl"], alpha=0.1, name="lk"),
        make("Sigmoid", ["dl"], ["e"], name="sg"),
        make("Mul", ["e", "d"], ["f"], name="mul"),
        make("Concat", ["f", "m"], ["cc"], axis=1, name="cat"),
        make("AveragePool", ["cc"], ["ap"], kernel_shape=[2, 2], name="avg"),
        make("GlobalAveragePool", ["ap"], ["g"], name="gap"),
        make("Flatten", ["g"], ["fl"], name="flat"),
        make("MatMul", ["fl", "fc"], ["q"], name="mm"),
        make("Add", ["q", "fb"], ["y"], name="fba"),
    ]
    return proto(nodes, {
        "w1": 3 * random(16, 3, 3, 3), "b1": random(16), "w2": 5 * random(16, 16, 3, 3, seed=1), "b2": random(16),
        "w3": random(16, 16, 1, 1), "fc": random(32, 10), "fb": random(10), "low": np.float32(0), "high": np.float32(6),
    }, shape=SHAPE)  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "float.onnx"
    onnx.save(network(), path)
    return path


def quantized(original: Path, path: Path, kind: QuantFormat, activations: QuantType, *, per_channel: bool) -> Path:
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            original, path, Images(), quant_format=kind, per_channel=per_channel, activation_type=activations,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return path


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("kind", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_the_float_network_comes_back(
    tmp_path: Path, original: Path, kind: QuantFormat, activations: QuantType, per_channel: bool
) -> None:
    path = quantized(original, tmp_path / "q.onnx", kind, activations, per_channel=per_channel)
    hub = load(path, dequantize=True)
    assert quantized_operators(hub.model) == []
    kinds = [node.op_type for node in hub.model.graph]
    # The activations that the quantizer left out, each once.
    assert sum(kinds.count(kind) for kind in ("Relu", "Clip")) == 2
    assert [layer.frozen_reason for layer in hub.layers()] == [None] * 4
    x = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    expected = outputs(original, x)
    assert distance(outputs(hub.proto(), x), expected) < 0.03
    assert distance(outputs(hub.proto(), x), expected) < distance(outputs(path, x), expected)


@pytest.mark.parametrize("kind", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_what_needs_float_says_so(tmp_path: Path, original: Path, kind: QuantFormat) -> None:
    hub = load(quantized(original, tmp_path / "q.onnx", kind, QuantType.QUInt8, per_channel=False))
    with pytest.raises(UserError, match=r"^q is quantized already \(.*DequantizeLinear.*; give --dequantize to fold"):
        compress(hub, model="q", ratios={"macs": 1.5})
    for name in ("e.onnx", "e.tflite"):
        with pytest.raises(UserError, match=r"the network is quantized already \(.*; give --dequantize to fold"):
            export(hub, tmp_path / name)
    if kind == QuantFormat.QDQ:
        assert {layer.frozen_reason for layer in hub.layers()} == {
            "is quantized already; open the file with --dequantize"
        }


def test_dynamic_quantization_is_refused_by_node(tmp_path: Path, original: Path) -> None:
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(original, tmp_path / "d.onnx")
    finally:
        logging.disable(logging.NOTSET)
    with pytest.raises(UserError, match=r"d\.onnx: node \S+ is ConvInteger and has no float form"):
        load(tmp_path / "d.onnx", dequantize=True)


#: Values that a quantized tensor can hold, and what stands behind the convolution when it is folded back.
CUTS = {
    "from zero": (np.float32(0.01), np.uint8(0), ["Conv", "Relu"]),
    "from zero, signed": (np.float32(0.01), np.int8(-128), ["Conv", "Relu"]),
    "from zero to six": (np.float32(6 / 255), np.uint8(0), ["Conv", "Clip"]),
    "around zero": (np.float32(0.01), np.uint8(128), ["Conv"]),
    "symmetric": (np.float32(0.01), np.int8(0), ["Conv"]),
}


@pytest.mark.parametrize("cut", CUTS)
def test_an_activation_that_the_range_replaces(tmp_path: Path, cut: str) -> None:
    scale, zero, kinds = CUTS[cut]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=0),
        helper.make_node("Conv", ["x", "v"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    integers = np.random.default_rng(0).integers(-127, 128, (6, 4, 1, 1)).astype(np.int8)
    scales = np.linspace(0.002, 0.02, 6).astype(np.float32)
    model = proto(nodes, {"w": integers, "ws": scales, "wz": np.zeros(6, np.int8), "s": scale, "z": zero})
    onnx.save(model, tmp_path / "q.onnx")
    hub = load(tmp_path / "q.onnx", dequantize=True)
    assert [node.op_type for node in hub.model.graph] == kinds
    np.testing.assert_array_equal(hub.layers()[0].kernel, integers * scales[:, None, None, None])


def test_integers_that_were_never_float_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.UINT8),
        helper.make_node("DequantizeLinear", ["i", "s"], ["y"], name="bytes"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 4])],
        [numpy_helper.from_array(np.float32(0.1), "s")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "b.onnx")
    with pytest.raises(UserError, match=r"node bytes is DequantizeLinear and takes integers i that were never float"):
        load(tmp_path / "b.onnx", dequantize=True)
