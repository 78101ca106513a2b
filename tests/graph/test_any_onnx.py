"""ONNX files that never were torch models: branches, shared weights, other files, open sizes, names, metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.compression.compressor import compress
from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx, size_bound, size_notice
from edgekron.exporters.tflite import export_tflite
from edgekron.graph import Hub, load

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    scale = 1 / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array((RANDOM.standard_normal(shape) * scale).astype(np.float32), name)


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def value(name: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: list[onnx.TensorProto],
    opset: int = 13,
    **metadata: str,
) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def run(model: onnx.ModelProto | Path, x: np.ndarray) -> np.ndarray:
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def axes(proto: onnx.ModelProto) -> list[list[Any]]:
    return [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*proto.graph.input, *proto.graph.output)
    ]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def near(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def branching(path: Path, opset: int) -> Path:
    """A branch that captures an outer value and a layer's weight, between layers that can be factorized."""
    then = helper.make_graph([helper.make_node("Relu", ["b"], ["t"])], "then", [], [value("t", None)])
    other = helper.make_graph(
        [helper.make_node("Conv", ["b", "inner"], ["i"], name="inside"), helper.make_node("Add", ["i", "b"], ["e"])],
        "else",
        [],
        [value("e", None)],
        [weight("inner", 32, 32, 1, 1)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], name="second", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("ReduceMax", ["b"], ["m"], keepdims=0, axes=[0, 1, 2, 3]),
        helper.make_node("Greater", ["m", "limit"], ["c"]),
        helper.make_node("If", ["c"], ["d"], name="choice", then_branch=then, else_branch=other),
        helper.make_node("Conv", ["d", "w3"], ["y"], name="third"),
    ]
    tensors = [weight("w1", 16, 3, 3, 3), weight("w2", 32, 16, 3, 3), weight("w3", 16, 32, 1, 1),
               numpy_helper.from_array(np.float32(2.0), "limit")]  # fmt: skip
    return save(path, nodes, [value("x", ["N", 3, 12, 12])], [value("y", ["N", 16, 6, 6])], tensors, opset)


@pytest.mark.parametrize("opset", [11, 17])
def test_branches_are_left_alone(tmp_path: Path, opset: int) -> None:
    path = branching(tmp_path / "b.onnx", opset)
    hub = load(path)
    assert [(layer.name, layer.frozen_reason) for layer in hub.layers()] == [
        ("first", None), ("second", None), ("third", None)]  # fmt: skip
    for scale in (0.1, 3.0):
        x = images(2, 3, 12, 12) * np.float32(scale)
        near(run(hub.proto(), x), run(path, x))
    result = compress(hub, model="b", ratios={"macs": 1.5}, data=[images(9, 3, 12, 12)]).hub
    result.save(tmp_path / "hub.onnx")
    for version in (17, 24):
        proto = export_onnx(Hub.open(tmp_path / "hub.onnx"), opset=version)
        assert "choice" in {node.name for node in proto.graph.node}
        for scale in (0.1, 3.0):
            x = images(2, 3, 12, 12) * np.float32(scale)
            near(run(proto, x), run(result.proto(), x), 1e-4)
    with pytest.raises(UserError, match="If node 'choice'"):
        export_tflite(result)


def pyramid(path: Path, batch: int | str, height: int | str, width: int | str) -> Path:
    """Nodes without names, a resize to the computed size of another value, SAME padding, metadata."""
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2], name="deep"),
        helper.make_node("Conv", ["c1", "w2"], ["c2"]),
        helper.make_node("Shape", ["r0"], ["s0"]),
        helper.make_node("Slice", ["s0", "two", "four"], ["size"]),
        helper.make_node("Shape", ["c2"], ["s1"]),
        helper.make_node("Slice", ["s1", "zero", "two"], ["front"]),
        helper.make_node("Concat", ["front", "size"], ["sizes"], axis=0),
        helper.make_node("Resize", ["c2", "", "", "sizes"], ["up"], mode="nearest"),
        helper.make_node("Add", ["up", "r0"], ["sum"]),
        helper.make_node("Conv", ["sum", "w3"], ["boxes"], auto_pad="SAME_UPPER", name="head"),
    ]
    tensors = [weight("w0", 32, 3, 3, 3), weight("w1", 64, 32, 3, 3), weight("w2", 32, 64, 1, 1),
               weight("w3", 32, 32, 3, 3), integers("two", 2), integers("four", 4), integers("zero", 0)]  # fmt: skip
    inputs, outputs = [value("image", [batch, 3, height, width])], [value("boxes", [batch, 32, "h2", "w2"])]
    return save(path, nodes, inputs, outputs, tensors, author="someone", classes="cat,dog")


@pytest.mark.parametrize("batch", [1, 4, "images"])
def test_open_sizes_names_and_metadata_come_through(tmp_path: Path, batch: int | str) -> None:
    path = pyramid(tmp_path / "p.onnx", batch, "height", "width")
    with pytest.raises(UserError, match=r"open sizes.*--input-shape"):
        load(path)
    hub = load(path, input_shape=(3, 24, 20))
    assert [(layer.name, layer.input_size) for layer in hub.layers()] == [
        ("c0", (24, 20)), ("deep", (12, 10)), ("c2", (6, 5)), ("head", (12, 10))]  # fmt: skip
    compressed = compress(hub, model="p", ratios={"macs": 2.0}).hub
    assert size_bound(compressed) == []
    proto = export_onnx(compressed)
    assert axes(proto) == [[batch, 3, "height", "width"], [batch, 32, "h2", "w2"]]
    props = {prop.key: prop.value for prop in proto.metadata_props}
    assert (props["author"], props["classes"]) == ("someone", "cat,dog")
    count = batch if isinstance(batch, int) else 3
    x = images(count, 3, 24, 20)
    near(run(proto, x), run(compressed.proto(), x))
    dense = export_onnx(hub)
    for size in ((24, 20), (40, 28)):
        x = images(count, 3, *size)
        near(run(dense, x), run(path, x))
        assert run(proto, x).shape == run(path, x).shape
    # TFLite has no open sizes; there it is the one that the network was loaded with.
    assert export_tflite(compressed)


def test_an_output_without_a_shape_is_named(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "p.onnx", 1, 24, 20)
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, path)
    with pytest.raises(UserError, match=r"p\.onnx: output boxes states no shape; state it"):
        load(path)


def test_forms_that_need_a_size_fix_it_and_say_so(tmp_path: Path) -> None:
    hub = load(pyramid(tmp_path / "p.onnx", "N", "h", "w"), input_shape=(3, 24, 20))
    result = compress(hub, model="p", ratios={"macs": 2.0}).hub
    factorized = next(layer for layer in result.layers() if layer.factorized is not None)
    forms = {factorized.name: ("grouped",) * len(factorized.factorized.network.axes)}
    assert size_notice(result) == []
    structured = compress(hub, model="p", ratios={"macs": 2.0}, method="tt-matrix").hub
    bound = size_bound(structured)
    assert bound
    assert f"24x20: the forms of {', '.join(bound)}" in size_notice(structured)[0]
    assert axes(export_onnx(structured))[0] == ["N", 3, 24, 20]
    assert axes(export_onnx(result, forms=forms))[0] == ["N", 3, "h", "w"]


def test_a_fixed_size_stays_fixed(tmp_path: Path) -> None:
    path = pyramid(tmp_path / "p.onnx", 2, 24, 20)
    proto = export_onnx(load(path))
    # The shape arithmetic is gone.
    assert {node.op_type for node in proto.graph.node} == {"Conv", "Relu", "Resize", "Add"}
    assert axes(proto) == [[2, 3, 24, 20], [2, 32, 12, 10]]


def test_shared_weights_sequences_and_products(tmp_path: Path) -> None:
    """Conv1d, two layers of one weight, Gemm in both layouts, MatMul without a bias."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[2, 2], name="sound"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "same"], ["b"], name="one"),
        helper.make_node("Conv", ["b", "same"], ["c"], name="two"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "bias"], ["h"], name="gemm", transB=1),
        helper.make_node("MatMul", ["h", "m"], ["y"], name="product"),
    ]
    tensors = [weight("w", 32, 8, 5), weight("same", 32, 32, 1), weight("g", 48, 32), weight("bias", 48),
               weight("m", 48, 10)]  # fmt: skip
    path = save(tmp_path / "s.onnx", nodes, [value("x", ["N", 8, 50])], [value("y", ["N", 10])], tensors)
    hub = load(path)
    reasons = {layer.name: layer.frozen_reason for layer in hub.layers()}
    assert list(reasons) == ["sound", "one", "two", "gemm", "product"]
    assert [name for name, reason in reasons.items() if reason] == ["one", "two"]
    result = compress(hub, model="s", ratios={"macs": 1.3}, data=[images(9, 8, 50)]).hub
    x = images(3, 8, 50)
    near(run(hub.proto(), x), run(path, x))
    near(run(export_onnx(result), x), run(result.proto(), x))


def test_weights_in_other_files(tmp_path: Path) -> None:
    model = onnx.load(pyramid(tmp_path / "p.onnx", 1, 24, 20))
    path, data = tmp_path / "outside.onnx", tmp_path / "weights.bin"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    hub = load(path)
    x = images(1, 3, 24, 20)
    expected = run(tmp_path / "p.onnx", x)
    whole = data.read_bytes()
    data.unlink()
    # All of it is in memory, and in every file that is written.
    near(run(hub.proto(), x), expected)
    near(run(export_onnx(hub), x), expected)
    with pytest.raises(UserError, match=r"outside\.onnx keeps its weights in weights\.bin, which is missing"):
        load(path)
    data.write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"weights\.bin is too short for its weight"):
        load(path)
    for location in ("../weights.bin", "/etc/passwd"):
        proto = onnx.load(path, load_external_data=False)
        for entry in proto.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = location
        (tmp_path / "escape.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(UserError, match="outside its folder"):
            load(tmp_path / "escape.onnx")


def test_what_is_refused(tmp_path: Path) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    x, y, w = value("x", ["N", 3, 8, 8]), value("y", ["N", 4, 8, 8]), weight("w", 4, 3, 1, 1)
    unknown = helper.make_node("Sweep", ["y"], ["z"], name="broom")
    cases = [
        (save(tmp_path / "old.onnx", [conv], [x], [y], [w], opset=6), "opset 6; export it with opset 7"),
        (save(tmp_path / "two.onnx", [conv, helper.make_node("Add", ["y", "e"], ["z"])],
              [x, value("e", ["N", 4, 8, 8])], [value("z", ["N", 4, 8, 8])], [w]), r"2 inputs \(x, e\)"),
        (save(tmp_path / "unknown.onnx", [conv, unknown], [x], [value("z", ["N", 4, 8, 8])], [w]), "broom is Sweep"),
        (save(tmp_path / "misfit.onnx", [conv], [x], [y], [weight("w", 4, 5, 1, 1)]), r"do not fit together.*conv"),
        (save(tmp_path / "whole.onnx", [conv], [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 3, 8, 8])],
              [y], [w]), "not float32"),
    ]  # fmt: skip
    newer = onnx.load(tmp_path / "old.onnx")
    newer.opset_import[0].version = 99
    newer.ir_version = 10
    (tmp_path / "newer.onnx").write_bytes(newer.SerializeToString())
    cases.append((tmp_path / "newer.onnx", r"newer\.onnx"))
    for path, said in cases:
        with pytest.raises(UserError, match=said) as caught:
            load(path)
        assert str(path) in str(caught.value)
