"""Factorized layers in LiteRT against the dense convolution of their kernel in ONNX Runtime."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.algebra import FactorNetwork, Geometry
from edgekron.algebra.lowering import valid_forms
from edgekron.errors import UserError
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tflite.read import read
from edgekron.graph import Factorized, Hub

KERNELS = {
    "kronecker": ("r f1 c1, r f2 c2 h2 w2", {"r": 2, "f1": 3, "c1": 2, "f2": 4, "c2": 3, "h2": 3, "w2": 3}),
    "kronecker, window first": (
        "r f1 c1 h1 w1, r f2 c2",
        {"r": 3, "f1": 2, "c1": 2, "h1": 3, "w1": 3, "f2": 3, "c2": 2},
    ),
    "kronecker, dilated factor": (
        "r f1 c1 h1 w1, r f2 c2 h2 w2",
        {"r": 1, "f1": 2, "c1": 3, "h1": 2, "w1": 2, "f2": 2, "c2": 2, "h2": 2, "w2": 2},
    ),
    "spatial": ("r f1 w1, r c1 h1", {"r": 4, "f1": 6, "w1": 3, "c1": 5, "h1": 3}),
    "tucker": ("f1 r1, r1 r2 h1 w1, r2 c1", {"f1": 6, "r1": 3, "r2": 4, "h1": 3, "w1": 3, "c1": 5}),
    "cp": ("r f1, r h1, r w1, r c1", {"r": 4, "f1": 6, "h1": 3, "w1": 3, "c1": 5}),
    "tensor train": (
        "h1 w1 r0, r0 f1 c1 r1, r1 f2 c2",
        {"h1": 3, "w1": 3, "r0": 2, "f1": 2, "c1": 3, "r1": 3, "f2": 3, "c2": 2},
    ),
    "groups": ("g r f1, g r c1 h1 w1", {"g": 2, "r": 2, "f1": 3, "c1": 3, "h1": 3, "w1": 3}),
    "depthwise second": ("r f1 c1, r f2 h1 w1", {"r": 1, "f1": 4, "c1": 5, "f2": 2, "h1": 3, "w1": 3}),
}

#: Cases for each kind and size; where there are more, a fixed random choice.
LIMIT = 48

GEOMETRIES = [
    Geometry(padding=((1, 1), (1, 1))),
    Geometry(),
    Geometry(stride=(2, 1), padding=((1, 1), (1, 1))),
    Geometry(stride=(2, 2), padding=((1, 1), (1, 1))),
    Geometry(dilation=(2, 2), padding=((2, 2), (2, 2))),
    Geometry(stride=(1, 2), dilation=(1, 2), padding=((0, 2), (3, 1))),
]


def make_hub(network: FactorNetwork, geometries: list[Geometry], size: tuple[int, int], names: list[str]) -> Hub:
    """One convolution of the input for each name, with geometries in turn."""
    outputs, inputs, kh, kw = network.kernel_shape
    groups = network.total("g")
    nodes, constants = [], []
    for name, geometry in zip(names, geometries, strict=True):
        (top, bottom), (left, right) = geometry.padding
        nodes.append(
            helper.make_node(
                "Conv",
                ["x", f"{name}.weight", f"{name}.bias"],
                [f"{name}.y"],
                name=name,
                kernel_shape=[kh, kw],
                strides=geometry.stride,
                dilations=geometry.dilation,
                pads=[top, left, bottom, right],
                group=groups,
            )
        )
        constants += [
            numpy_helper.from_array(np.ones((outputs, inputs, kh, kw), np.float32), f"{name}.weight"),
            numpy_helper.from_array(np.ones(outputs, np.float32), f"{name}.bias"),
        ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs * groups, *size])
    y = [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(nodes, "test", [x], y, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Hub(ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model)))


@pytest.mark.parametrize("size", [(9, 10), (8, 7)])
@pytest.mark.parametrize("kind", KERNELS)
def test_every_form_of_every_order_equals_the_dense_convolution(
    tflite_equals, rng: np.random.Generator, kind: str, size: tuple[int, int]
) -> None:
    factors, sizes = KERNELS[kind]
    network = FactorNetwork(factors, sizes)
    cases = [
        (order, geometry, forms)
        for geometry in GEOMETRIES
        for order in network.orders()
        for forms in itertools.product(*(valid_forms(s, "tflite") for s in network.stages(order, geometry)))
    ]
    if len(cases) > LIMIT:
        cases = [cases[i] for i in sorted(rng.choice(len(cases), LIMIT, replace=False))]
    names = [f"layer{i}" for i in range(len(cases))]
    hub = make_hub(network, [geometry for _, geometry, _ in cases], size, names)
    for index, (name, (order, geometry, forms)) in enumerate(zip(names, cases, strict=True)):
        tensors = [rng.standard_normal(network.factor_shape(i)).astype(np.float32) for i in range(len(network.axes))]
        bias = rng.standard_normal(network.kernel_shape[0]).astype(np.float32) if index % 2 else None
        hub.factorize(
            name,
            Factorized(name, "conv", network, tuple(tensors), bias, order, geometry, {"tflite": forms}),
        )
    x = rng.standard_normal((2, *hub.input_shape)).astype(np.float32)
    contents = tflite_equals(hub.dense().proto(), export_tflite(hub, batch=2), x)
    assert not {"GATHER", "SPLIT", "BATCH_MATMUL"} & set(contents.operators)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_fully_connected(tflite_equals, rng: np.random.Generator, rows: int, bias: bool) -> None:
    network = FactorNetwork("r f1 c1, r f2 c2", {"r": 2, "f1": 3, "c1": 4, "f2": 5, "c2": 2})
    cases = [
        (order, forms)
        for order in network.orders()
        for forms in [
            ("dense",),
            *itertools.product(*(valid_forms(s, "tflite") for s in network.stages(order))),
        ]
    ]
    nodes, constants, names = [], [], [f"fc{i}" for i in range(len(cases))]
    for name in names:
        nodes.append(
            helper.make_node("Gemm", ["x", f"{name}.weight", f"{name}.bias"], [f"{name}.y"], name=name, transB=1)
        )
        constants += [
            numpy_helper.from_array(np.ones((15, 8), np.float32), f"{name}.weight"),
            numpy_helper.from_array(np.ones(15, np.float32), f"{name}.bias"),
        ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])
    y = [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, ["N", 15]) for name in names]
    graph = helper.make_graph(nodes, "test", [x], y, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    hub = Hub(ir.serde.deserialize_model(model))
    for name, (order, forms) in zip(names, cases, strict=True):
        tensors = [rng.standard_normal(network.factor_shape(i)).astype(np.float32) for i in range(2)]
        vector = rng.standard_normal(15).astype(np.float32) if bias else None
        hub.factorize(name, Factorized(name, "linear", network, tuple(tensors), vector, order, forms={"tflite": forms}))
    batch = rng.standard_normal((rows, 8)).astype(np.float32)
    tflite_equals(hub.dense().proto(), export_tflite(hub, batch=rows), batch)


def one_layer(geometry: Geometry, forms: tuple[str, ...], bias: bool = True) -> Hub:
    network = FactorNetwork("r f1 c1, r f2 c2 h2 w2", {"r": 2, "f1": 16, "c1": 4, "f2": 16, "c2": 32, "h2": 3, "w2": 3})
    hub = make_hub(network, [geometry], (8, 8), ["layer"])
    rng = np.random.default_rng(3)
    tensors = [rng.standard_normal(network.factor_shape(i)).astype(np.float32) for i in range(2)]
    vector = rng.standard_normal(256).astype(np.float32) if bias else None
    hub.factorize(
        "layer", Factorized("layer", "conv", network, tuple(tensors), vector, (1, 0), geometry, {"tflite": forms})
    )
    return hub


def test_folds_store_each_factor_once() -> None:
    geometry = Geometry(padding=((1, 1), (1, 1)))
    factors = 2 * 16 * 4 + 2 * 16 * 32 * 9
    sizes = {
        forms: read(export_tflite(one_layer(geometry, forms, bias=False))).constant_bytes
        for forms in [("fold", "fold"), ("fold", "mix"), ("grouped", "grouped"), ("dense",)]
    }
    assert sizes["fold", "fold"] < 4 * factors + 1000
    assert sizes["fold", "fold"] < min(sizes["fold", "mix"], sizes["grouped", "grouped"])
    assert sizes["dense",] > 4 * 256 * 128 * 9


SHUFFLE = ["RESHAPE", "TRANSPOSE", "RESHAPE"]
SHUFFLED = ["RESHAPE", "CONV_2D", *SHUFFLE, "CONV_2D", "RESHAPE", "ADD", *SHUFFLE]


@pytest.mark.parametrize(
    ("forms", "operators"),
    [
        (("fold", "mix"), ["RESHAPE", "CONV_2D", "RESHAPE", "CONV_2D"]),
        (("grouped", "mix"), ["CONV_2D", "CONV_2D"]),
        (
            ("fold", "fold"),
            SHUFFLED,
        ),
        (("dense",), ["CONV_2D"]),
    ],
)
def test_operators_of_each_form(forms: tuple[str, ...], operators: list[str]) -> None:
    hub = one_layer(Geometry(padding=((1, 1), (1, 1))), forms)
    assert read(export_tflite(hub)).operators == operators


def test_forms_given_to_the_exporter_win() -> None:
    hub = one_layer(Geometry(padding=((1, 1), (1, 1))), ("fold", "fold"))
    assert read(export_tflite(hub, forms={"layer": ["dense"]})).operators == ["CONV_2D"]


def test_a_fold_over_a_stride_is_refused() -> None:
    hub = one_layer(Geometry(stride=(2, 2), padding=((1, 1), (1, 1))), ("fold", "mix"))
    with pytest.raises(UserError, match=r"layer 'layer'.*form 'fold' is not exact.*use grouped or mix"):
        export_tflite(hub)


def test_forms_for_an_unknown_layer_are_refused() -> None:
    hub = one_layer(Geometry(), ("fold", "mix"))
    with pytest.raises(UserError, match=r"\['typo'\].*\['layer'\]"):
        export_tflite(hub, forms={"typo": ["dense"]})
