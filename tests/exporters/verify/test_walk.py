"""Errors put into one layer of one version are found there, at their size, and nowhere else."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgekron.errors import UserError
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.verify import Named, Names, TorchVersion, VersionChain, compare, conclusion, walk
from edgekron.exporters.verify.parts import Parts
from edgekron.exporters.verify.versions import OnnxVersion, Version, open_version
from edgekron.graph import Hub, load

from .conftest import Family

pytestmark = pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")


def walked(family: Family, *titles: str) -> VersionChain:
    return walk(family.named(*titles), [("16 images", family.images)], family.names(), images=True)


def entered(chain: VersionChain, index: int) -> dict[str, float]:
    """What enters at each layer of one step."""
    return {p.layer: p.entered for p in chain.steps[index].parts if p.layer is not None and p.entered is not None}


def test_three_kinds_of_error_are_kept_apart(family: Family) -> None:
    files = "out.onnx", "out.tflite", "int8.tflite", "int8.onnx"
    chain = walked(family, "torch", "factorized torch", "hub", *files)
    kinds = ["decomposition", *["conversion"] * 3, *["quantization"] * 2]
    assert [step.link.kind for step in chain.steps] == kinds
    for index, step in enumerate(chain.steps):
        errors = entered(chain, index)
        assert set(errors) == {"first", "second", "last"}, step.title
        if step.link.kind == "decomposition":
            dense = {layer.name for layer in family.small.layers() if layer.factorized is None}
            assert dense
            assert all((error == 0) == (name in dense) for name, error in errors.items())
            assert max(errors.values()) > 0.05
        elif step.link.kind == "conversion":
            assert max(errors.values()) < 2e-6
            assert max(part.accumulated for part in step.parts) < 2e-6
        else:
            assert all(1e-3 < error < 5e-2 for error in errors.values()), errors
        assert step.judge == {4: "out.onnx", 5: "out.onnx"}.get(index, chain.steps[index].against)
    said = conclusion(chain)
    assert said.startswith("Decomposition moves the outputs by ")
    assert said.count(" enters most at ") == 3
    assert said.count("keep their class") == 3
    assert said.endswith(").")


def test_every_version_knows_its_network(family: Family) -> None:
    files = "out.onnx", "out.tflite", "int8.onnx", "int8.tflite"
    small = family.named("factorized torch", "hub", *files)
    assert {entry.version.identity for entry in small} == {family.small.identity}
    dense = family.named("torch", "dense hub", "dense.onnx")
    assert {entry.version.identity for entry in dense} == {family.dense.identity}
    assert [entry.version.precision for entry in small] == ["float32"] * 4 + ["int8"] * 2


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_values_between_rescaled_factors_are_not_compared(family: Family, kind: str) -> None:
    """A quantized file has its factors rebalanced: a value between them is another one, and no error."""
    exact, quantized = (entry.version for entry in family.named(f"out.{kind}", f"int8.{kind}"))
    inputs, both = [("images", family.images)], set(exact.inner) & set(quantized.inner)
    _, layers = compare(exact, quantized, inputs, {})
    left_out = both - {row.name for row in layers} - set(exact.outputs)
    assert left_out
    assert not left_out & family.names().values
    assert {layer.output for layer in family.small.layers()} & {row.name for row in layers}
    assert max(row.relative for row in layers) < 0.05
    # Of one precision they are the same.
    _, layers = compare(exact, exact, inputs, {})
    assert left_out <= {row.name for row in layers}


def test_decomposition_in_hubs_is_the_one_in_torch(family: Family) -> None:
    torches, hubs = walked(family, "torch", "factorized torch"), walked(family, "dense hub", "hub")
    assert entered(torches, 0) == pytest.approx(entered(hubs, 0), rel=1e-4)
    assert torches.steps[0].since[0].sqnr_db == pytest.approx(hubs.steps[0].since[0].sqnr_db, abs=1e-2)


def scaled(hub: Hub, layer: str, scale: float) -> Hub:
    """The same network with the kernel and bias of one layer scaled."""
    result = hub.copy()
    old = result.layer(layer)
    assert old.kernel is not None
    for value in old.node.inputs[1:]:
        assert value is not None
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(scale))
    return result


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_error_is_found_where_it_enters(family: Family, tmp_path: Path, kind: str) -> None:
    """A layer that gives 1 % too much has an error of 1 %; layers behind it pass it on, and have none of their own."""
    path = tmp_path / f"wrong.{kind}"
    {"onnx": export_onnx, "tflite": export_tflite}[kind](scaled(family.dense, "second", 1.01), path)
    versions = [*family.named("torch", "dense hub"), Named("wrong", open_version(path))]
    chain = walk(versions, [("images", family.images)], family.names(), images=True)
    errors = entered(chain, 1)
    # In TFLite the addition and the activation behind the layer are one value with it, and dilute what entered.
    assert errors["second"] == pytest.approx(0.01, rel=1e-3) if kind == "onnx" else 0.001 < errors["second"] < 0.01
    assert max(errors["first"], errors["last"]) < 1e-6
    parts = {part.layer: part for part in chain.steps[1].parts}
    assert parts["last"].accumulated > 1e-3
    assert parts["first"].accumulated < 1e-6
    assert chain.steps[1].worst is not None
    assert chain.steps[1].worst.layer == "second"


def test_an_error_between_layers_is_told_by_its_operator(family: Family) -> None:
    proto = export_onnx(family.dense)
    (node,) = (node for node in proto.graph.node if node.op_type == "ReduceMean")
    mean = node.output[0]
    node.output[0] = "true_mean"
    position = list(proto.graph.node).index(node) + 1
    proto.graph.node.insert(position, helper.make_node("Mul", ["true_mean", "much"], [mean]))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.02), "much"))
    versions = [*family.named("dense hub"), Named("wrong", OnnxVersion(proto, True, "wrong"))]
    chain = walk(versions, [("images", family.images)], family.names(), images=True)
    worst = chain.steps[0].worst
    assert worst is not None
    assert (worst.layer, worst.name) == (None, f"ReduceMean {mean}")
    assert worst.entered == pytest.approx(0.02, rel=1e-4)


def test_versions_of_other_networks_are_refused(family: Family) -> None:
    other = load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), input_shape=(3, 9, 9))
    names = family.names()
    for version, said in (
        (open_version(other), r"torch takes \[3, 12, 12\] and other \[3, 9, 9\]"),
        (with_two_outputs(family), "torch has 1 outputs and other 2"),
    ):
        with pytest.raises(UserError, match=said):
            walk([*family.named("torch"), Named("other", version)], [("x", family.images[:1])], names, images=False)


def with_two_outputs(family: Family) -> Version:
    proto = export_onnx(family.dense)
    first = proto.graph.node[0].output[0]
    proto.graph.output.append(helper.make_tensor_value_info(first, TensorProto.FLOAT, None))
    return OnnxVersion(proto, True, "wrong")


def test_values_of_other_names_are_left_out(family: Family) -> None:
    names = replace(family.names(), values=frozenset(), layers={})
    chain = walk(family.named("hub", "out.onnx"), [("images", family.images)], names, images=True)
    assert chain.steps[0].parts == []
    assert chain.steps[0].worst is None
    assert conclusion(chain).count("enters") == 0


def test_large_values_are_walked_in_pieces(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = walked(family, "torch", "factorized torch", "hub")
    monkeypatch.setattr(sys.modules["edgekron.exporters.verify.walk"], "_ROOM", 1)
    pieces = walked(family, "torch", "factorized torch", "hub")
    assert entered(pieces, 0) == pytest.approx(entered(whole, 0), rel=1e-5)


def test_a_module_shows_what_its_hub_shows() -> None:
    """Rows as images, a layer that runs twice, activations in place, outputs in a dictionary."""

    class Sound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            x = torch.relu_(self.a(x))
            x = torch.relu_(self.b(torch.relu_(self.b(x))))
            return {"low": x.mean(2), "scores": self.c(x.mean(2))}

    torch.manual_seed(0)
    module = Sound().eval()
    hub = load(module, input_shape=(2, 20))
    x = np.random.default_rng(0).standard_normal((3, 2, 20)).astype(np.float32)
    version, graph = TorchVersion(module, hub), open_version(hub)
    for name, value in version.run(x).items():
        np.testing.assert_allclose(value, graph.run(x)[name], atol=1e-6)
    shown, expected = version.look(x), graph.look(x)
    layers = {layer.name: layer for layer in hub.layers()}
    assert layers["a"].output in shown
    assert layers["b"].output not in shown
    for name in set(shown) & set(expected):
        np.testing.assert_allclose(shown[name], expected[name], atol=1e-6)
    values = frozenset(str(value.name) for node in hub.model.graph for value in node.outputs)
    names = Names(values, {layer.output: layer.name for layer in hub.layers()})
    chain = walk([Named("torch", version), Named("hub", graph)], [("x", x)], names, images=False)
    errors = entered(chain, 0)
    assert {"a", "c"} <= set(errors)
    assert max(errors.values()) < 1e-6


def test_parts_leave_control_flow_whole() -> None:
    """A value that a branch reads is not cut: the If runs from the cut before it."""
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["a"], [f"{op}_y"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, None)],
        )
        for op in ("Neg", "Abs")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Add", ["r", "one"], ["a"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    graph = helper.make_graph(
        nodes, "g", info[:1], info[1:],
        [numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.array(True), "yes")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    parts = Parts(proto, ["r", "a", "y"])
    x, given = np.array([[-1, 2]], np.float32), np.array([[10, 20]], np.float32)
    again = parts.redo(x, {"r": given, "a": given, "y": given})
    assert again["r"].tolist() == [[0, 2]]
    assert again["a"].tolist() == [[11, 21]]
    assert again["y"].tolist() == [[-11, -21]]
    assert parts.between == {"r": ["r"], "a": ["a"], "y": ["a", "y"]}
