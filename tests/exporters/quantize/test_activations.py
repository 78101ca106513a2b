"""Activations of int8 files: close to float32, and in the operators that the runtimes have fast kernels for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import Quantization, speed
from edgekron.exporters.tflite.read import read
from edgekron.exporters.verify import difference
from edgekron.graph import load
from edgekron.runtimes.agent import backends

CHANNELS = 8
TARGETS = ("onnx", "tflite")
CONSTANTS = {
    "zero": np.float32(0),
    "half": np.float32(0.5),
    "three": np.float32(3),
    "five": np.float32(5),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "slope": np.full((CHANNELS, 1, 1), 0.1, np.float32),
    "slopes": np.linspace(0.1, 0.3, CHANNELS, dtype=np.float32).reshape(-1, 1, 1),
}


def node(operator: str, inputs: str, output: str, **attributes: float | str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


GATE = [node("Add", "c three", "a"), node("Clip", "a zero six", "g")]
SIGMOID = node("Sigmoid", "c", "s")
#: From the value "c" of a convolution to the value "h".
ACTIVATIONS = {
    "relu": [node("Relu", "c", "h")],
    "relu beside": [node("Relu", "c", "r"), node("Add", "c r", "h")],
    "relu6 beside": [node("Clip", "c zero six", "r"), node("Add", "c r", "h")],
    "hard-swish": [node("HardSwish", "c", "h")],
    "hard-swish, quotient": [*GATE, node("Mul", "c g", "m"), node("Div", "m six", "h")],
    "hard-swish, sixth": [*GATE, node("Mul", "g sixth", "m"), node("Mul", "c m", "h")],
    "hard-swish, sigmoid": [node("HardSigmoid", "c", "s", alpha=1 / 6), node("Mul", "c s", "h")],
    "hard-sigmoid": [node("HardSigmoid", "c", "h")],
    "silu": [SIGMOID, node("Mul", "c s", "h")],
    "tanh": [node("Tanh", "c", "h")],
    "leaky": [node("LeakyRelu", "c", "h", alpha=0.1)],
    "one slope": [node("PRelu", "c slope", "h")],
    "slopes": [node("PRelu", "c slopes", "h")],
    "clip above zero": [node("Clip", "c half five", "h")],
    "gelu": [node("Gelu", "c", "h")],
    "elu": [node("Elu", "c", "h")],
    "selu": [node("Selu", "c", "h")],
    "celu": [node("Celu", "c", "h", alpha=2.0)],
    "mish": [node("Mish", "c", "h")],
    "softplus": [node("Softplus", "c", "h")],
    "softsign": [node("Softsign", "c", "h")],
    "erf": [node("Erf", "c", "h")],
    "quotient": [SIGMOID, node("Add", "s half", "d"), node("Div", "c d", "h")],
}
#: Activations with operators that ONNX Runtime has in float alone.
FLOAT_IN_ONNX = {
    "hard-sigmoid": {"HardSigmoid"},
    "tanh": {"Tanh"},
    "slopes": {"PRelu"},
    "clip above zero": {"Clip"},
    "gelu": {"Gelu"},
    "elu": {"Elu"},
    "selu": {"Selu"},
    "celu": {"Celu"},
    "mish": {"Softplus", "Tanh", "Mul"},
    "softplus": {"Softplus"},
    "softsign": {"Softsign"},
    "erf": {"Erf"},
    "quotient": {"Div"},
}
#: Activations with operators that XNNPACK does not take.
NOT_DELEGATED = {"clip above zero": {"MAXIMUM": 2}, "erf": {"SIGN": 2}}


def network(name: str, folder: Path) -> Path:
    """Two convolutions with an activation each."""
    rng = np.random.default_rng(0)
    nodes, constants, last = [], dict(CONSTANTS), "x"
    for index in range(2):
        inputs = 3 if index == 0 else CHANNELS
        weight = rng.standard_normal((CHANNELS, inputs, 3, 3)) * 1.5 / np.sqrt(9 * inputs)
        constants[f"w{index}"] = weight.astype(np.float32)
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        for given in ACTIVATIONS[name]:
            made = onnx.NodeProto()
            made.CopyFrom(given)
            made.name = f"{given.name}{index}"
            made.input[:] = [value if value in CONSTANTS else f"{value}{index}" for value in given.input]
            made.output[:] = [f"{given.output[0]}{index}"]
            nodes.append(made)
        last = f"h{index}"
    used = {value for made in nodes for value in made.input}
    graph = helper.make_graph(
        nodes,
        "activations",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", CHANNELS, 12, 12])],
        [numpy_helper.from_array(np.asarray(a), key) for key, a in constants.items() if key in used],
    )
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_int8_is_close_and_in_fast_operators(tmp_path: Path, name: str, target: str) -> None:
    hub, x = load(network(name, tmp_path)), np.random.default_rng(1).standard_normal((8, 3, 12, 12)).astype(np.float32)
    runs = {}
    for how in (Quantization(), Quantization("int8", [x])):
        path = tmp_path / f"{how.dtype}.{target}"
        export(hub, path, ExportSettings(how))
        runs[how.dtype] = backends.run_nchw(backends.load(path), x)[0]
    assert difference("y", "images", runs["float32"], runs["int8"]).sqnr_db >= 27
    if target == "onnx":
        assert set(speed.left_in_float(path)) == FLOAT_IN_ONNX.get(name, set())
    else:
        assert read(path.read_bytes()).problems() == []
        session = backends.load(path)
        assert speed.not_delegated(session) == NOT_DELEGATED.get(name, {})
        assert session.describe()["partitions"] == (3 if name in NOT_DELEGATED else 1)


@pytest.mark.parametrize("name", ["hard-swish", "hard-swish, quotient", "relu beside", "relu6 beside", "silu"])
def test_activations_of_tflite_files_are_integers_throughout(tmp_path: Path, name: str) -> None:
    hub, x = load(network(name, tmp_path)), np.random.default_rng(1).standard_normal((8, 3, 12, 12)).astype(np.float32)
    export(hub, tmp_path / "y.tflite", ExportSettings(Quantization("int8", [x], integer_io=True)))
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(read((tmp_path / "y.tflite").read_bytes()).histogram)


def test_float32_keeps_the_operators_that_are_fast_there(tmp_path: Path) -> None:
    export(load(network("hard-swish, quotient", tmp_path)), tmp_path / "y.tflite")
    assert read((tmp_path / "y.tflite").read_bytes()).histogram == Counter(CONV_2D=2, HARD_SWISH=2)


@pytest.mark.parametrize("target", TARGETS)
def test_an_int8_file_that_is_slower_is_said(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, x = load(network("clip above zero", tmp_path)), np.zeros((4, 3, 12, 12), np.float32)
    settings = ExportSettings(Quantization("int8", [x]))
    said = {}
    for int8 in (1.0, 1.62):
        monkeypatch.setattr(speed, "times", lambda sessions, int8=int8: [1.0, int8])
        said[int8] = export(hub, tmp_path / f"y.{target}", settings, force=True)
    runtime, operator = ("onnxruntime", "Clip") if target == "onnx" else ("litert", "MAXIMUM")
    assert said[1.0] == []
    sentence = (
        f"the int8 file takes 1.62 times as long as float32 in {runtime}, which has no fast integer kernel for "
        f"{operator} (2); where time matters more than bytes, export float32 or compare both with `edgekron bench` "
        "on the device."
    )
    assert said[1.62] == [sentence]


def test_files_are_timed_in_turns(tmp_path: Path) -> None:
    path = tmp_path / "y.onnx"
    export(load(network("relu", tmp_path)), path)
    found = speed.times([backends.load(path), backends.load(path)])
    assert len(found) == 2
    assert all(seconds > 0 for seconds in found)


def test_open_sizes_are_fixed_to_be_timed(tmp_path: Path) -> None:
    proto = onnx.load(network("relu", tmp_path))
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
        proto.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
    onnx.save(proto, tmp_path / "open.onnx")
    x = np.random.default_rng(1).standard_normal((4, 3, 12, 12)).astype(np.float32)
    hub = load(tmp_path / "open.onnx", input_shape=(3, 12, 12))
    export(hub, tmp_path / "y.onnx", ExportSettings(Quantization("int8", [x])))
    assert backends.load(tmp_path / "y.onnx").input.shape == (None, 3, None, None)
