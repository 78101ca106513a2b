"""Runs one ONNX model in ONNX Runtime and, exported, in LiteRT, and compares every output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekron.exporters.tflite.convert import convert
from edgekron.exporters.tflite.read import Contents, read
from edgekron.exporters.tflite.writer import SIGNATURE, pack


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    input_shape: Sequence[int],
    outputs: Sequence[str],
    opset: int = 20,
) -> onnx.ModelProto:
    """A model with one float32 input "x", whose batch is dynamic, and outputs of any shape."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *input_shape[1:]])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    initializers = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    graph = helper.make_graph(list(nodes), "test", [x], results, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run_tflite(data: bytes, x: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Outputs by name, images transposed back to the axes of the network."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    runner = interpreter.get_signature_runner(SIGNATURE)
    (entry,) = runner.get_input_details()
    (given,), outputs = read(data).inputs.values(), read(data).outputs
    results = runner(**{entry: np.ascontiguousarray(x.transpose(given.order(x.ndim)))})
    return {name: results[name].transpose(np.argsort(outputs[name].order(results[name].ndim))) for name in names}


def compare(model: onnx.ModelProto, x: np.ndarray, tolerance: float = 1e-5) -> Contents:
    """Asserts that LiteRT gives what ONNX Runtime gives, relative to each output's largest value."""
    data = pack(convert(ir.serde.deserialize_model(model), batch=x.shape[0]))
    return compare_file(model, data, x, tolerance)


def compare_file(model: onnx.ModelProto, data: bytes, x: np.ndarray, tolerance: float = 1e-5) -> Contents:
    """Asserts that a TFLite file gives in LiteRT what a model gives in ONNX Runtime, and that it is well formed."""
    contents = read(data)
    assert contents.problems() == []
    names = [output.name for output in model.graph.output]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = dict(zip(names, session.run(names, {model.graph.input[0].name: x}), strict=True))
    actual = run_tflite(data, x, names)
    for name in names:
        assert actual[name].shape == expected[name].shape, name
        scale = max(float(np.abs(expected[name]).max()), 1e-6)
        error = float(np.abs(actual[name] - expected[name]).max()) / scale
        assert error <= tolerance, f"{name}: {error}"
    return contents


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tflite_equals() -> Callable[..., Contents]:
    """tflite_equals(onnx model, TFLite file, x, tolerance=1e-5)."""
    return compare_file


@pytest.fixture
def agree(rng: np.random.Generator) -> Callable[..., Contents]:
    """agree(nodes, constants, input_shape, outputs, opset=20): one model, checked on random input."""

    def check(
        nodes: Sequence[onnx.NodeProto],
        constants: Mapping[str, np.ndarray],
        input_shape: Sequence[int],
        outputs: Sequence[str] = ("y",),
        opset: int = 20,
        scale: float = 1.0,
    ) -> Contents:
        model = onnx_model(nodes, constants, input_shape, outputs, opset)
        return compare(model, (scale * rng.standard_normal(input_shape)).astype(np.float32))

    return check


@pytest.fixture
def agree_one(agree: Callable[..., Contents]) -> Callable[..., Contents]:
    """agree_one(operator, input_shape, *constant inputs, opset=20, **attributes): one node."""

    def check(
        operator: str,
        input_shape: Sequence[int],
        *constants: np.ndarray | None,
        opset: int = 20,
        scale: float = 1.0,
        **attributes: Any,
    ) -> Contents:
        arrays = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
        names = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(constants))]
        node = helper.make_node(operator, names, ["y"], name="node", **attributes)
        return agree([node], arrays, input_shape, opset=opset, scale=scale)

    return check
