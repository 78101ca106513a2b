"""Small ONNX files of a few nodes, and whether a hub of one computes what ONNX Runtime computes of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgekron.graph import Hub, load

Nodes = list[onnx.NodeProto]
Constants = dict[str, Any]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    scale = 1 / np.sqrt(max(1, np.prod(shape[1:])))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def proto(
    nodes: Nodes,
    constants: Constants,
    *,
    shape: tuple[int, ...] = (4, 7, 9),
    opset: int = 17,
    ir_version: int = 8,
    kind: int = TensorProto.FLOAT,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """A model of the input x [n, *shape] and the output y, with the shape that ONNX Runtime gives it."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", *shape])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    sizes = outputs(model, images(shape, kind)).shape
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", kind, ["n", *sizes[1:]]))
    return model


def images(shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((2, *shape)).astype(helper.tensor_dtype_to_np_dtype(kind))


def outputs(model: onnx.ModelProto | Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def expect_same(path: Path, model: onnx.ModelProto, tolerance: float = 1e-5, **how: Any) -> Hub:
    """The hub of the model, which gives what ONNX Runtime gives of the model itself."""
    onnx.save(model, path)
    hub = load(path, **how)
    value = model.graph.input[0].type.tensor_type
    shape = tuple(d.dim_value for d in value.shape.dim[1:])
    x = images(shape, value.elem_type)
    expected = outputs(model, x).astype(np.float32)
    found = outputs(hub.proto(), x.astype(np.float32))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1.0, float(np.abs(expected).max())), rtol=0)
    return hub
