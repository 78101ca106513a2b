"""Factorized nodes in the hub: each equals the dense layer of its expanded kernel, and survives a file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.errors import UserError
from edgekron.graph import Factorized, Hub, load

# name, factors, sizes, geometry; the layer's own attributes follow from them.
CASES = [
    (
        "kronecker",
        "r1 f1 c1, r1 f2 c2 h1 w1",
        {"r1": 2, "f1": 4, "c1": 2, "f2": 3, "c2": 4, "h1": 3, "w1": 3},
        Geometry((1, 1), (1, 1), ((1, 1), (1, 1))),
    ),
    (
        "stride",
        "r1 f1 c1 h1, r1 f2 c2 w1",
        {"r1": 3, "f1": 4, "c1": 2, "f2": 2, "c2": 4, "h1": 3, "w1": 3},
        Geometry((2, 2), (1, 1), ((1, 1), (1, 1))),
    ),
    (
        "dilated",
        "f1 r1, r1 r2 h1 w1, r2 c1",
        {"f1": 6, "r1": 4, "r2": 3, "h1": 3, "w1": 3, "c1": 5},
        Geometry((1, 1), (2, 1), ((2, 2), (1, 1))),
    ),
    (
        "asymmetric",
        "f1 r1, r1 c1 h1 w1",
        {"f1": 7, "r1": 2, "c1": 6, "h1": 2, "w1": 4},
        Geometry((1, 2), (1, 1), ((0, 1), (1, 2))),
    ),
    (
        "cp",
        "f1 r1, r1 h1, r1 w1, r1 c1",
        {"f1": 8, "r1": 3, "h1": 3, "w1": 3, "c1": 4},
        Geometry((2, 1), (1, 1), ((1, 1), (1, 1))),
    ),
    (
        "grouped",
        "g1 f1 r1, g1 r1 c1 h1 w1",
        {"g1": 2, "f1": 4, "r1": 2, "c1": 3, "h1": 3, "w1": 3},
        Geometry((1, 1), (1, 1), ((1, 1), (1, 1))),
    ),
    (
        "split window",
        "f1 c1 h1 w1, f2 c2 h2 w2",
        {"f1": 2, "c1": 2, "h1": 2, "w1": 2, "f2": 3, "c2": 3, "h2": 2, "w2": 2},
        Geometry((1, 1), (1, 1), ((2, 1), (1, 2))),
    ),
]


def factors_of(network: FactorNetwork, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    shapes = [network.factor_shape(i) for i in range(len(network.axes))]
    return tuple(random.standard_normal(shape).astype(np.float32) * 0.5 for shape in shapes)


def conv_hub(name: str, factors: str, sizes: dict[str, int], geometry: Geometry, bias: bool = True) -> Hub:
    """Relu, a factorized convolution and Sigmoid."""
    network = FactorNetwork(factors, sizes)
    groups, kernel = network.total("g"), network.kernel_shape
    (top, bottom), (left, right) = geometry.padding
    attributes = {"strides": geometry.stride, "dilations": geometry.dilation, "pads": [top, left, bottom, right]}
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Conv", ["a", "layer.weight"], ["b"], group=groups, **attributes),
            helper.make_node("Sigmoid", ["b"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", groups * kernel[1], 9, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", kernel[0], "h", "w"])],
        [numpy_helper.from_array(np.ones(kernel, np.float32), "layer.weight")],
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
        hub = load(path)
    vector = np.linspace(-1, 1, kernel[0], dtype=np.float32) if bias else None
    order = tuple(reversed(range(len(network.axes))))
    tensors, forms = factors_of(network), {"onnx": ("dense",)}
    hub.factorize("layer", Factorized("layer", "conv", network, tensors, vector, order, geometry, forms))
    return hub


def run(proto: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)})


def images(batch: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_factorized_conv_equals_its_dense_layer(case: tuple, bias: bool) -> None:
    hub = conv_hub(*case, bias=bias)
    proto = hub.proto()
    onnx.checker.check_model(proto, full_check=True)
    layer = hub.layer("layer")
    dense = hub.dense()
    for batch in (1, 2, 3):
        x = images(batch, hub.input_shape)
        (got,), (reference,) = run(proto, x), run(dense.proto(), x)
        np.testing.assert_allclose(got, reference, atol=1e-5)
        (top, bottom), (left, right) = layer.geometry.padding
        padded = torch.nn.functional.pad(torch.relu(torch.from_numpy(x)), (left, right, top, bottom))
        vector = None if layer.bias is None else torch.from_numpy(layer.bias)
        y = torch.nn.functional.conv2d(
            padded,
            torch.from_numpy(layer.kernel),
            vector,
            layer.geometry.stride,
            0,
            layer.geometry.dilation,
            layer.groups,
        )
        np.testing.assert_allclose(got, torch.sigmoid(y).numpy(), atol=1e-5)
        assert layer.output_size == tuple(y.shape[2:])


@pytest.mark.parametrize("bias", [True, False])
def test_factorized_linear_equals_its_dense_layer(bias: bool) -> None:
    network = FactorNetwork("r1 f1 c1, r1 f2 c2", {"r1": 2, "f1": 2, "c1": 3, "f2": 5, "c2": 4})
    hub = load(nn.Sequential(nn.Flatten(), nn.Linear(12, 10, bias=bias)), input_shape=(3, 2, 2))
    vector = np.arange(10, dtype=np.float32) if bias else None
    hub.factorize("1", Factorized("1", "linear", network, factors_of(network), vector, (1, 0)))
    onnx.checker.check_model(hub.proto(), full_check=True)
    x = images(3, (3, 2, 2))
    expected = x.reshape(3, 12) @ hub.layer("1").kernel[:, :, 0, 0].T + (0 if vector is None else vector)
    np.testing.assert_allclose(run(hub.proto(), x)[0], expected, atol=1e-5)
    np.testing.assert_allclose(run(hub.dense().proto(), x)[0], expected, atol=1e-5)


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    hub = conv_hub(*CASES[0])
    path = tmp_path / "net.hub.onnx"
    hub.save(path)
    with pytest.raises(UserError, match=r"net\.hub\.onnx"):
        hub.save(path)
    again = Hub.open(path)
    before, after = hub.layer("layer").factorized, again.layer("layer").factorized
    assert before is not None
    assert after is not None
    assert (before.network, before.order, before.geometry, before.forms, before.kind) == (
        after.network,
        after.order,
        after.geometry,
        after.forms,
        after.kind,
    )
    for a, b in zip((*before.tensors, before.bias), (*after.tensors, after.bias), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (again.input_name, again.input_shape, again.output_names) == (
        hub.input_name,
        hub.input_shape,
        hub.output_names,
    )
    assert load(path).layer("layer").factorized is not None
    x = images(2, hub.input_shape)
    np.testing.assert_array_equal(run(hub.proto(), x)[0], run(again.proto(), x)[0])
    np.testing.assert_array_equal(
        run(hub.proto(), x)[0], run(ir.serde.serialize_model(ir.serde.deserialize_model(again.proto())), x)[0]
    )


def test_initializers_of_a_factorized_layer_are_its_factors_only() -> None:
    hub = conv_hub(*CASES[0])
    names = {"layer.factor0", "layer.factor1", "layer.bias"}
    assert set(hub.model.graph.initializers) == names
    first = hub.layer("layer").factorized
    assert first is not None
    hub.factorize("layer", first)
    assert set(hub.model.graph.initializers) == names
    assert len(hub.model.functions) == 1
    assert set(hub.dense().model.graph.initializers) == {"layer.weight", "layer.bias"}
    assert len(hub.dense().model.functions) == 0


def test_copy_is_independent() -> None:
    hub = conv_hub(*CASES[0])
    other = hub.copy()
    factorized = other.layer("layer").factorized
    assert factorized is not None
    other.factorize(
        "layer",
        Factorized(
            "layer", "conv", factorized.network, factors_of(factorized.network, 1), None, (0, 1), factorized.geometry
        ),
    )
    assert hub.layer("layer").bias is not None
    assert other.layer("layer").bias is None
    assert np.abs(hub.layer("layer").kernel - other.layer("layer").kernel).max() > 0.1


def test_submodel_equals_the_part_of_the_whole() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)
    )
    hub = load(module, input_shape=(8, 9, 9))
    network = FactorNetwork("f1 r1, r1 c1 h1 w1", {"f1": 6, "r1": 3, "c1": 12, "h1": 3, "w1": 3})
    hub.factorize("2", Factorized("2", "conv", network, factors_of(network), np.zeros(6, np.float32), (1, 0)))
    _first, middle, last = hub.layers()
    x = images(3, (8, 9, 9))
    (inner,) = run(hub.submodel([hub.input_name], [middle.input]), x)
    np.testing.assert_allclose(inner, torch.relu(module[0](torch.from_numpy(x))).detach().numpy(), atol=1e-5)
    part = hub.submodel([middle.input], [middle.output, last.output])
    onnx.checker.check_model(part)
    between, (got,) = run(part, inner), run(hub.proto(), x)
    assert between[0].shape == (3, 6, 7, 7)
    np.testing.assert_allclose(between[1], got, atol=1e-6)
    assert {i.name for i in part.graph.initializer}.isdisjoint({"0.weight", "0.bias"})
    assert len(part.functions) == 1
    assert len(hub.submodel([last.input], [last.output]).functions) == 0
    with pytest.raises(UserError, match="also needs"):
        hub.submodel([last.input], [middle.output])
    with pytest.raises(UserError, match="nowhere"):
        hub.submodel(["nowhere"], [middle.output])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"geometry": Geometry()}, "the layer is"),
        ({"bias": np.zeros(3, np.float32)}, "bias has shape"),
        ({"order": (0, 0)}, "permutation"),
        ({"layer": "other"}, "the factors are those of"),
    ],
)
def test_factors_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    hub = conv_hub(*CASES[0])
    factorized = hub.layer("layer").factorized
    assert factorized is not None
    fields = {name: getattr(factorized, name) for name in factorized.__dataclass_fields__} | change
    with pytest.raises(UserError, match=message):
        hub.factorize("layer", Factorized(**fields))


def test_nan_factors_are_refused() -> None:
    network = FactorNetwork("f1 r1, r1 c1", {"f1": 2, "r1": 1, "c1": 2})
    bad = np.full((2, 1), np.nan, np.float32)
    with pytest.raises(UserError, match="layer fc: its factors or bias contain NaN"):
        Factorized("fc", "linear", network, (bad, np.ones((1, 2), np.float32)), None, (1, 0))
