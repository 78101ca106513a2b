"""Exported ONNX files equal their dense networks, hold standard operators only, and keep each factor once."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.algebra.lowering import valid_forms
from edgekron.errors import UserError
from edgekron.exporters.onnx import OPSETS, export_onnx
from edgekron.graph import Factorized, Hub, load
from edgekron.models import NETWORKS, build

SAME = ((1, 1), (1, 1))
CONVS = [
    (
        "r1 f1 c1, r1 f2 c2 h1 w1",
        {"r1": 2, "f1": 4, "c1": 2, "f2": 3, "c2": 4, "h1": 3, "w1": 3},
        Geometry((1, 1), (1, 1), SAME),
    ),
    (
        "r1 f1 c1, r1 f2 c2 h1 w1",
        {"r1": 2, "f1": 4, "c1": 2, "f2": 3, "c2": 4, "h1": 3, "w1": 3},
        Geometry((2, 2), (1, 1), SAME),
    ),
    (
        "r1 f1 c1 h1, r1 f2 c2 w1",
        {"r1": 3, "f1": 4, "c1": 2, "f2": 2, "c2": 4, "h1": 3, "w1": 3},
        Geometry((2, 1), (1, 2), ((1, 0), (2, 1))),
    ),
    (
        "f1 c1 h1 w1, f2 c2 h2 w2",
        {"f1": 2, "c1": 2, "h1": 2, "w1": 2, "f2": 3, "c2": 3, "h2": 2, "w2": 2},
        Geometry((1, 1), (1, 1), ((2, 1), (1, 2))),
    ),
    (
        "f1 r1, r1 r2 h1 w1, r2 c1",
        {"f1": 6, "r1": 4, "r2": 3, "h1": 3, "w1": 3, "c1": 5},
        Geometry((1, 1), (2, 2), ((2, 2), (2, 2))),
    ),
    ("f1 r1, r1 h1, r1 w1, r1 c1", {"f1": 8, "r1": 3, "h1": 3, "w1": 3, "c1": 4}, Geometry((2, 1), (1, 1), SAME)),
    (
        "g1 r1 f1 c1, g1 r1 f2 c2 h1 w1",
        {"g1": 2, "f1": 2, "c1": 2, "r1": 2, "f2": 2, "c2": 3, "h1": 3, "w1": 3},
        Geometry((1, 2), (1, 1), SAME),
    ),
]
LINEARS = [
    ("r1 f1 c1, r1 f2 c2", {"r1": 2, "f1": 2, "c1": 3, "f2": 5, "c2": 4}),
    ("f1 r1, r1 c1", {"f1": 10, "r1": 3, "c1": 12}),
    ("c1 f1 r1, r1 c2 f2 r2, r2 c3 f3", {"c1": 2, "f1": 5, "r1": 2, "c2": 3, "f2": 1, "r2": 3, "c3": 2, "f3": 2}),
]


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def images(batch: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)


def random_factors(network: FactorNetwork, scale: float = 0.5) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    shapes = [network.factor_shape(i) for i in range(len(network.axes))]
    return tuple((random.standard_normal(shape) * scale).astype(np.float32) for shape in shapes)


def one_layer(
    factors: str, sizes: dict[str, int], geometry: Geometry | None, order: tuple[int, ...], bias: bool
) -> Hub:
    """A hub of one factorized layer, a convolution where there is a geometry, and a Relu."""
    network = FactorNetwork(factors, sizes)
    kernel, groups = network.kernel_shape, network.total("g")
    channels = groups * kernel[1]
    if geometry is None:
        node = helper.make_node("Gemm", ["x", "layer.weight"], ["y"], transB=1)
        weight = np.ones(kernel[:2], np.float32)
        shapes: list[list] = [["N", channels], ["N", kernel[0]]]
    else:
        (top, bottom), (left, right) = geometry.padding
        node = helper.make_node(
            "Conv",
            ["x", "layer.weight"],
            ["y"],
            group=groups,
            strides=geometry.stride,
            dilations=geometry.dilation,
            pads=[top, left, bottom, right],
        )
        weight = np.ones(kernel, np.float32)
        shapes = [["N", channels, 9, 8], ["N", kernel[0], "h", "w"]]
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["y"], ["z"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, shapes[1])],
        [numpy_helper.from_array(weight, "layer.weight")],
    )
    with TemporaryDirectory() as folder:
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), Path(folder) / "net.onnx")
        hub = load(Path(folder) / "net.onnx")
    vector = np.linspace(-1, 1, kernel[0], dtype=np.float32) if bias else None
    kind = "linear" if geometry is None else "conv"
    hub.factorize(
        "layer", Factorized("layer", kind, network, random_factors(network), vector, order, geometry or Geometry())
    )
    return hub


def expect_standard(proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} <= {""}
    assert not proto.functions
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert not {"Shape", "Gather", "Concat", "Einsum"} & {node.op_type for node in proto.graph.node}


def check_forms(factors: str, sizes: dict[str, int], geometry: Geometry | None, bias: bool) -> int:
    """Every order with every combination of forms, against the dense layer; the number of files."""
    network, count = FactorNetwork(factors, sizes), 0
    for order in network.orders():
        hub = one_layer(factors, sizes, geometry, order, bias)
        dense = hub.dense().proto()
        x = images(2, hub.input_shape)
        reference = run(dense, x)
        stages = network.stages(order, geometry)
        combinations = list(itertools.product(*(valid_forms(stage, "onnx") for stage in stages)))[:6]
        for forms in [("dense",), *combinations]:
            proto = export_onnx(hub, forms={"layer": forms}, simplify=count % 2 == 0)
            expect_standard(proto)
            np.testing.assert_allclose(run(proto, x), reference, atol=1e-5 * max(1.0, np.abs(reference).max()))
            count += 1
    return count


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CONVS, ids=lambda case: case[0])
def test_every_form_of_a_convolution_equals_the_dense_one(case: tuple, bias: bool) -> None:
    assert check_forms(*case, bias=bias) >= 4


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", LINEARS, ids=lambda case: case[0])
def test_every_form_of_a_linear_layer_equals_the_dense_one(case: tuple, bias: bool) -> None:
    assert check_forms(*case, None, bias=bias) >= 4


@pytest.mark.parametrize("repeats_inside", [False, True])
def test_a_repeated_factor_is_stored_once(repeats_inside: bool) -> None:
    if repeats_inside:
        factors = "g1 r1 f1 c1, g1 r1 f2 c2 h1 w1"
        sizes = {"g1": 2, "r1": 2, "f1": 2, "c1": 8, "f2": 8, "c2": 16, "h1": 3, "w1": 3}
    else:
        factors, sizes = "r1 f1 c1, r1 f2 c2 h1 w1", {"r1": 2, "f1": 2, "c1": 8, "f2": 8, "c2": 32, "h1": 3, "w1": 3}
    hub = one_layer(factors, sizes, Geometry((1, 1), (1, 1), SAME), (1, 0), True)
    stored = export_onnx(hub, forms={"layer": ("grouped", "mix")})
    names = {i.name: list(i.dims) for i in stored.graph.initializer}
    network = FactorNetwork(factors, sizes)
    assert np.prod(names["layer.stage0.factor"]) == np.prod(network.factor_shape(1))
    assert "Tile" in {node.op_type for node in stored.graph.node}
    convs = [node for node in stored.graph.node if node.op_type == "Conv"]
    assert [node.input[1] for node in convs] == ["layer.stage0.weight", "layer.stage1.weight"]
    for batch in (1, 2, 3):
        x = images(batch, hub.input_shape)
        reference = run(hub.dense().proto(), x)
        np.testing.assert_allclose(run(stored, x), reference, atol=1e-5 * np.abs(reference).max())


def test_fold_and_matmul_need_no_transpose_and_keep_weights_exact() -> None:
    factors, sizes = "r1 f1 c1, r1 f2 c2 h1 w1", {"r1": 2, "f1": 4, "c1": 2, "f2": 3, "c2": 4, "h1": 3, "w1": 3}
    hub = one_layer(factors, sizes, Geometry((1, 1), (1, 1), SAME), (1, 0), True)
    proto = export_onnx(hub, forms={"layer": ("fold", "matmul")})
    assert [node.op_type for node in proto.graph.node].count("Reshape") == 3
    assert "Transpose" not in {node.op_type for node in proto.graph.node}
    factorized = hub.layer("layer").factorized
    assert factorized is not None
    stored = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    np.testing.assert_array_equal(
        np.sort(stored["layer.stage0.weight"].ravel()), np.sort(factorized.tensors[1].ravel())
    )
    np.testing.assert_array_equal(
        np.sort(stored["layer.stage1.weight"].ravel()), np.sort(factorized.tensors[0].ravel())
    )


def factorized_network(name: str) -> tuple[nn.Module, Hub, Hub]:
    """The module, its hub, and the hub with every second layer as a random spatial or Kronecker factorization."""
    torch.manual_seed(0)
    module = build(name)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
    hub = load(module.eval(), input_shape=NETWORKS[name].input_shape)
    small = hub.copy()
    for index, layer in enumerate(hub.layers()):
        if layer.frozen_reason is not None or index % 2 == 0 or layer.kernel is None:
            continue
        f, c, h, w = layer.kernel.shape
        if layer.kind == "linear":
            network = FactorNetwork("f1 r1, r1 c1", {"f1": f, "r1": 2, "c1": c})
        elif f % 4 == 0 and c % 4 == 0:
            sizes = {"r1": 2, "f1": 4, "c1": 4, "f2": f // 4, "c2": c // 4, "h1": h, "w1": w}
            network = FactorNetwork("r1 f1 c1, r1 f2 c2 h1 w1", sizes)
        else:
            network = FactorNetwork("f1 r1 w1, r1 c1 h1", {"f1": f, "r1": 2, "c1": c, "h1": h, "w1": w})
        tensors = random_factors(network, scale=(f * c * h * w) ** -0.15)
        small.factorize(
            layer.name, Factorized(layer.name, layer.kind, network, tensors, layer.bias, (1, 0), layer.geometry)
        )
    return module, hub, small


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", ["sixconv", "resnet20", "resnet18-cifar", "se-resnet34-cifar", "vgg16-bn-cifar", "mobilenetv2-cifar"]
)
def test_bundled_networks(name: str) -> None:
    module, hub, small = factorized_network(name)
    plain, compressed, reference = export_onnx(hub), export_onnx(small), small.dense().proto()
    expect_standard(plain)
    expect_standard(compressed)
    assert len(compressed.SerializeToString()) < len(plain.SerializeToString())
    parameters = sum(np.prod(i.dims) for i in plain.graph.initializer)
    assert len(plain.SerializeToString()) < 4 * parameters + 60_000
    for batch in (1, 2, 3):
        x = images(batch, hub.input_shape)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        assert np.abs(run(plain, x) - expected).max() <= 1e-4 * np.abs(expected).max()
        expected = run(reference, x)
        assert np.abs(expected).max() > 0
        assert np.isfinite(expected).all()
        assert np.abs(run(compressed, x) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(opset: int, tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    hub = load(module, input_shape=(4, 8, 8))
    network = FactorNetwork("r1 f1 c1, r1 f2 c2 h1 w1", {"r1": 1, "f1": 2, "c1": 2, "f2": 4, "c2": 2, "h1": 3, "w1": 3})
    geometry = hub.layer("0").geometry
    hub.factorize("0", Factorized("0", "conv", network, random_factors(network), hub.layer("0").bias, (1, 0), geometry))
    path = tmp_path / "net.onnx"
    proto = export_onnx(hub, path, opset=opset)
    assert [entry.version for entry in proto.opset_import] == [opset]
    assert onnx.load(path) == proto
    assert {p.key: p.value for p in proto.metadata_props}["edgekron.opset"] == str(opset)
    x = images(3, (4, 8, 8))
    np.testing.assert_allclose(run(proto, x), run(hub.dense().proto(), x), atol=1e-5)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    hub = one_layer(*LINEARS[1], None, (1, 0), True)
    with pytest.raises(UserError, match="opset 9 is not supported"):
        export_onnx(hub, opset=9)
    with pytest.raises(UserError, match="layer layer"):
        export_onnx(hub, forms={"layer": ("fold", "nonsense")})
    with pytest.raises(UserError, match="no factorized layer other"):
        export_onnx(hub, forms={"other": ("dense",)})
    export_onnx(hub, tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"net\.onnx"):
        export_onnx(hub, tmp_path / "net.onnx")
    export_onnx(hub, tmp_path / "net.onnx", force=True)
