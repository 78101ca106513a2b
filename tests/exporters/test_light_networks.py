"""The ONNX project's nine "light" networks, whose weights are constants, with its recorded outputs.

Such weights show little of a mistake, so that each network is also run with weights at random against ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper, version_converter

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tflite.read import read
from edgekron.graph import Hub, load

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = sorted(path.stem for path in LIGHT.glob("*.onnx"))
#: Those of more than a hundred million weights: run with the recorded outputs alone.
LARGE = {"light_bvlc_alexnet", "light_vgg19", "light_zfnet512"}
#: Small enough for every run of the tests.
QUICK = {"light_squeezenet", "light_shufflenet"}


def parameters(names: list[str]) -> list[object]:
    """The names, all but the small networks marked as thorough."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in names]


def hub_of(name: str, folder: Path, fill: Callable[[tuple[int, ...]], np.ndarray] | None) -> tuple[Hub, np.ndarray]:
    """The hub of a network, its weights made by ``fill`` from their shapes, and the input of its recorded output."""
    model = version_converter.convert_version(onnx.load(LIGHT / f"{name}.onnx"), 11)
    kept = {value.name for value in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in kept)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if fill is not None:
        for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
            array = fill(tuple(int(n) for n in shapes[node.input[0]]))
            model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            model.graph.node.remove(node)
    # Before format 4 every initializer had to be an input too.
    model.ir_version = 8
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    size = tuple(d.dim_value for d in given.type.tensor_type.shape.dim)
    return load(path), (np.arange(np.prod(size)).reshape(size) / np.prod(size)).astype(np.float32)


def run_both(hub: Hub, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The only output in ONNX Runtime and in LiteRT, as ONNX lays it out."""
    session = onnxruntime.InferenceSession(export_onnx(hub).SerializeToString(), providers=["CPUExecutionProvider"])
    (onnx_output,) = session.run(None, {hub.input_name: x})
    data = export_tflite(hub)
    runner = Interpreter(model_content=data, num_threads=1).get_signature_runner("serving_default")
    (given,), (made,) = read(data).inputs.values(), read(data).outputs.values()
    (tflite_output,) = runner(**{hub.input_name: np.ascontiguousarray(x.transpose(given.order(x.ndim)))}).values()
    return onnx_output, tflite_output.transpose(np.argsort(made.order(tflite_output.ndim)))


@pytest.mark.parametrize("name", parameters(NAMES))
def test_recorded_output(name: str, tmp_path: Path) -> None:
    hub, x = hub_of(name, tmp_path, None)
    recorded = onnx.TensorProto.FromString((LIGHT / f"{name}_output_0.pb").read_bytes())
    expected = numpy_helper.to_array(recorded)
    for output in run_both(hub, x):
        np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", parameters([name for name in NAMES if name not in LARGE]))
def test_random_weights(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def fill(shape: tuple[int, ...]) -> np.ndarray:
        # Kernels that keep the scale of what they see; vectors, which may be variances, above zero.
        if len(shape) > 1:
            return (random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        return random.uniform(0.5, 1.5, shape).astype(np.float32)

    hub, x = hub_of(name, tmp_path, fill)
    onnx_output, tflite_output = run_both(hub, x)
    assert onnx_output.std() > 0
    np.testing.assert_allclose(tflite_output, onnx_output, rtol=0, atol=1e-4 * np.abs(onnx_output).max())
