"""Tiny real model files, and what they must compute, in plain numpy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import helper, numpy_helper

from edgekron.runtimes.agent.connection import Connection
from edgekron.runtimes.devices import LocalDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs, and the lock of the machine, are the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


#: Images [channels, height, width] of every small file here: odd and different sizes, so that no mix-up goes unseen.
IMAGE = (3, 7, 10)
CLASSES = 5


@pytest.fixture(scope="session")
def kernel() -> np.ndarray:
    """[classes, channels, 3, 3]"""
    return np.random.default_rng(1).normal(size=(CLASSES, IMAGE[0], 3, 3)).astype(np.float32)


def convolve(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution of NCHW images with window 3, padding 1, stride 1."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,fcij->nfhw", windows, kernel.astype(np.float64))


@pytest.fixture(scope="session")
def expected(kernel: np.ndarray) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The outputs of the small files: scores [N, classes] (pixel means), and the map [N, classes, H, W]."""

    def outputs(images: np.ndarray) -> list[np.ndarray]:
        y = convolve(images, kernel)
        return [y.mean(axis=(2, 3)), y]

    return outputs


@pytest.fixture(scope="session")
def write_onnx(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write_onnx(kernel, size, batch) -> a file with the outputs of ``expected``."""
    folder = tmp_path_factory.mktemp("onnx")

    def write(kernel: np.ndarray, size: tuple[int, int], batch: int | str = "N") -> Path:
        f, c = kernel.shape[:2]
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w"], ["map"], pads=[1, 1, 1, 1]),
                helper.make_node("ReduceMean", ["map", "axes"], ["scores"], keepdims=0),
            ],
            "tiny",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, c, *size])],
            [
                helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, f]),
                helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, [batch, f, *size]),
            ],
            [numpy_helper.from_array(kernel, "w"), numpy_helper.from_array(np.array([2, 3], np.int64), "axes")],
        )
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return write


class FlatModel:
    """Collects tensors and operators of a TFLite file."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        data: np.ndarray | None = None,
        dtype: str = "FLOAT32",
        scale: float | None = None,
        zero: int = 0,
        free_batch: bool = False,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(schema.TensorType, dtype)
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
        if free_batch:
            tensor.shapeSignature = [-1, *shape[1:]]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs: list[int], outputs: list[int], options: object = None) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 2 if name == "RELU" else 1
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes), inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def pack(self, inputs: list[int], outputs: list[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@pytest.fixture(scope="session")
def write_tflite(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write_tflite(kernel, size, batch, free_batch) -> the NHWC twin of ``write_onnx``."""
    folder = tmp_path_factory.mktemp("tflite")

    def write(kernel: np.ndarray, size: tuple[int, int], batch: int = 1, free_batch: bool = False) -> Path:
        f, c = kernel.shape[:2]
        flat = FlatModel()
        x = flat.tensor("x", (batch, *size, c), free_batch=free_batch)
        w = flat.tensor("w", (f, 3, 3, c), kernel.transpose(0, 2, 3, 1))
        b = flat.tensor("b", (f,), np.zeros(f, np.float32))
        axes = flat.tensor("axes", (2,), np.array([1, 2], np.int32), "INT32")
        image = flat.tensor("map", (batch, *size, f), free_batch=free_batch)
        scores = flat.tensor("scores", (batch, f), free_batch=free_batch)
        convolution = schema.Conv2DOptionsT()
        convolution.padding = schema.Padding.SAME
        convolution.strideW = convolution.strideH = 1
        flat.operator("CONV_2D", [x, w, b], [image], convolution)
        flat.operator("MEAN", [image, axes], [scores], schema.ReducerOptionsT())
        path = folder / f"{len(list(folder.iterdir()))}.tflite"
        path.write_bytes(flat.pack([x], [scores, image]))
        return path

    return write


@pytest.fixture
def int8_relu(tmp_path: Path) -> Path:
    """max(x, 0) of an int8 image, scale 0.05 and zero point -7 on both sides."""
    flat = FlatModel()
    shape = (1, *IMAGE[1:], IMAGE[0])
    x, y = (flat.tensor(name, shape, None, "INT8", 0.05, -7) for name in "xy")
    flat.operator("RELU", [x], [y])
    path = tmp_path / "int8.tflite"
    path.write_bytes(flat.pack([x], [y]))
    return path


@pytest.fixture(params=["any.onnx", "fixed.onnx", "fixed.tflite", "four.tflite", "any.tflite"])
def small(
    request: pytest.FixtureRequest,
    kernel: np.ndarray,
    write_onnx: Callable[..., Path],
    write_tflite: Callable[..., Path],
) -> Path:
    """The same network as a file of either runtime, with a free batch, a batch of one, or of four."""
    size = IMAGE[1:]
    match request.param:
        case "any.onnx":
            return write_onnx(kernel, size)
        case "fixed.onnx":
            return write_onnx(kernel, size, 1)
        case "fixed.tflite":
            return write_tflite(kernel, size)
        case "four.tflite":
            return write_tflite(kernel, size, 4)
        case _:
            return write_tflite(kernel, size, free_batch=True)


@pytest.fixture
def device() -> Iterator[LocalDevice]:
    local = LocalDevice()
    yield local
    local.close()


@pytest.fixture
def start(device: LocalDevice) -> Callable[..., Connection]:
    """start(subject) -> a fresh worker of the packed agent."""
    return lambda subject="a test": Connection([sys.executable, str(device.agent), "work"], None, subject)


@pytest.fixture
def worker(start: Callable[..., Connection]) -> Iterator[Connection]:
    with start() as connection:
        yield connection


@pytest.fixture(scope="session")
def images() -> Callable[[int], np.ndarray]:
    """images(n) -> n normal images, always the same."""
    return lambda count: np.random.default_rng(count).normal(size=(count, *IMAGE)).astype(np.float32)
