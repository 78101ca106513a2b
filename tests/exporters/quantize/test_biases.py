"""Layers with filters that are zero, tiny, or small beside their biases, in int8 files of both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from edgekron.algebra import FactorNetwork
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import Quantization
from edgekron.exporters.tflite.read import read
from edgekron.graph import Factorized, Hub, load
from edgekron.runtimes.agent import backends

CHANNELS = 8
#: The channel whose filter is unlike the others, and the biases of all channels.
ODD = 3
TARGETS = ("onnx", "tflite")
#: Operator, attributes, shape of the weight, axis of the weight's output channels.
LAYERS = {
    "conv": ("Conv", {"pads": [1] * 4}, (CHANNELS, CHANNELS, 3, 3), 0),
    "depthwise": ("Conv", {"pads": [1] * 4, "group": CHANNELS}, (CHANNELS, 1, 3, 3), 0),
    "grouped": ("Conv", {"pads": [1] * 4, "group": 2}, (CHANNELS, CHANNELS // 2, 3, 3), 0),
    "transposed": ("ConvTranspose", {"strides": [2, 2]}, (CHANNELS, CHANNELS, 2, 2), 1),
    "linear": ("Gemm", {"transB": 1}, (CHANNELS, CHANNELS), 0),
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((8, CHANNELS, 6, 6)).astype(np.float32)


def layer(kind: str, filters: float, bias: float, relu: bool = False) -> onnx.ModelProto:
    """One layer whose channel ODD has a filter of the size ``filters`` and another bias."""
    operator, attributes, shape, axis = LAYERS[kind]
    rng = np.random.default_rng(1)
    weight = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    odd = np.moveaxis(weight, axis, 0)[ODD]
    with np.errstate(under="ignore"):
        odd *= np.float32(filters)
    biases = np.linspace(-1, 1, CHANNELS, dtype=np.float32)
    biases[ODD] = bias
    size = [] if kind == "linear" else [6, 6]
    nodes = [helper.make_node(operator, ["x", "w", "b"], ["s" if relu else "y"], name="layer", **attributes)]
    nodes += [helper.make_node("Relu", ["s"], ["y"])] if relu else []
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(biases, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def outputs(hub: Hub, folder: Path, target: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of the float32 and of the int8 file."""
    found = []
    for how in (Quantization(), Quantization("int8", [x])):
        path = folder / f"{how.dtype}.{target}"
        export(hub, path, ExportSettings(how), force=True)
        found.append(backends.run_nchw(backends.load(path), x)[0])
    return found[0], found[1]


def check(hub: Hub, folder: Path, target: str, x: np.ndarray, *, odd: float = 1.0) -> None:
    """The odd channel is right to ``odd`` steps of the output, and no other channel suffers."""
    float32, int8 = outputs(hub, folder, target, x)
    low, high = min(0.0, float(float32.min())), float(float32.max())
    error = np.abs(float32 - int8) / ((high - low) / 255)
    assert error[:, ODD].max() <= odd
    assert error.max() <= 4.0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("filters", [0.0, 1e-40, 1e-20, 1e-9, 1e-5])
def test_a_channel_without_a_filter_keeps_its_bias(
    tmp_path: Path, images: np.ndarray, target: str, kind: str, filters: float
) -> None:
    x = images[..., 0, 0] if kind == "linear" else images
    onnx.save(layer(kind, filters, 1.5), tmp_path / "layer.onnx")
    check(load(tmp_path / "layer.onnx"), tmp_path, target, x)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bias", [0.0, -3e3, 3e3])
@pytest.mark.parametrize("filters", [0.0, 1e-20, 1e-3])
def test_biases_of_any_size(tmp_path: Path, images: np.ndarray, target: str, bias: float, filters: float) -> None:
    onnx.save(layer("conv", filters, bias), tmp_path / "layer.onnx")
    check(load(tmp_path / "layer.onnx"), tmp_path, target, images)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("bias", [-1e3, -1e9, -1e30])
def test_a_bias_far_beyond_the_outputs_stays_beyond_them(
    tmp_path: Path, images: np.ndarray, target: str, bias: float
) -> None:
    onnx.save(layer("conv", 1.0, bias, relu=True), tmp_path / "layer.onnx")
    float32, int8 = outputs(load(tmp_path / "layer.onnx"), tmp_path, target, images)
    assert not float32[:, ODD].any()
    assert not int8[:, ODD].any()
    assert np.abs(float32 - int8).max() <= 4 * float32.max() / 255


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("factor", [0, 1])
def test_stages_of_a_factorized_layer(tmp_path: Path, images: np.ndarray, target: str, factor: int) -> None:
    """The last stage adds the bias; either factor may be zero, for one channel or one rank."""
    onnx.save(layer("conv", 1.0, 1.5), tmp_path / "layer.onnx")
    hub = load(tmp_path / "layer.onnx")
    dense = hub.layers()[0]
    network = FactorNetwork("r f1, r c1 h1 w1", {"r": 4, "f1": CHANNELS, "c1": CHANNELS, "h1": 3, "w1": 3})
    rng = np.random.default_rng(2)
    tensors = [(rng.standard_normal(network.factor_shape(i)) / 4).astype(np.float32) for i in range(2)]
    if factor == 0:
        tensors[0][:, ODD] = 0
    else:
        tensors[1][2] = 0
    hub.factorize(
        dense.name, Factorized(dense.name, "conv", network, tuple(tensors), dense.bias, (1, 0), dense.geometry)
    )
    check(hub, tmp_path, target, images, odd=1.0 if factor == 0 else 4.0)


def test_biases_that_fit_leave_a_file_as_the_quantizer_made_it(tmp_path: Path, images: np.ndarray) -> None:
    onnx.save(layer("conv", 1.0, 1.5), tmp_path / "layer.onnx")
    outputs(load(tmp_path / "layer.onnx"), tmp_path, "tflite", images)
    contents = read((tmp_path / "int8.tflite").read_bytes())
    (weight,) = (t for t in contents.graph.tensors if t.type == schema.TensorType.INT8 and t.shape[0] == CHANNELS)
    integers = np.frombuffer(contents.model.buffers[weight.buffer].data, np.int8).reshape(CHANNELS, -1)
    assert (np.abs(integers).max(axis=1) == 127).all()


def test_a_file_with_other_scales_is_well_formed(tmp_path: Path, images: np.ndarray) -> None:
    onnx.save(layer("conv", 0.0, 1.5), tmp_path / "layer.onnx")
    outputs(load(tmp_path / "layer.onnx"), tmp_path, "tflite", images)
    contents = read((tmp_path / "int8.tflite").read_bytes())
    assert contents.problems() == []
    used = {tensor.buffer for tensor in contents.graph.tensors} | {m.buffer for m in contents.model.metadata}
    assert {i for i, buffer in enumerate(contents.model.buffers) if buffer.data is not None} <= used


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("filters", [0.0, 1e-40, 1e-20])
def test_files_with_small_weights_alone(
    tmp_path: Path, images: np.ndarray, target: str, kind: str, filters: float
) -> None:
    x = images[..., 0, 0] if kind == "linear" else images
    onnx.save(layer(kind, filters, 1.5), tmp_path / "layer.onnx")
    export(load(tmp_path / "layer.onnx"), tmp_path / f"y.{target}", ExportSettings(Quantization("int8-dynamic")))
    y = backends.run_nchw(backends.load(tmp_path / f"y.{target}"), x)[0]
    np.testing.assert_allclose(y[:, ODD], 1.5, rtol=1e-5)
