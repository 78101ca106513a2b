"""A layer's value with a normalization folded in is compared with the value behind the normalization of the file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper, numpy_helper

from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.verify import cases, open_versions, walk
from edgekron.exporters.verify.compare import difference
from edgekron.graph import Hub, load

CHANNELS = 6


def network(spelling: str, folded: bool) -> onnx.ModelProto:
    """Two convolutions with a normalization and a Relu each; ``folded`` has the normalizations in the convolutions."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    arrays: dict[str, np.ndarray] = {}
    value, channels = "x", 3
    for i in range(2):
        kernel = rng.normal(size=(CHANNELS, channels, 3, 3)).astype(np.float32) / 6
        scale, shift = rng.uniform(2, 4, CHANNELS).astype(np.float32), rng.normal(size=CHANNELS).astype(np.float32)
        conv = [value, f"kernel{i}"] + [f"shift{i}"] * folded
        nodes.append(helper.make_node("Conv", conv, [f"conv{i}"], name=f"Conv.{i}", pads=[1] * 4))
        arrays[f"kernel{i}"] = kernel * scale.reshape(-1, 1, 1, 1) if folded else kernel
        along = (-1,) if folded or spelling == "norm" else (1, -1, 1, 1)
        arrays |= {f"shift{i}": shift.reshape(along), f"scale{i}": scale.reshape(along)}
        value = f"conv{i}"
        if not folded and spelling == "norm":
            arrays |= {f"mean{i}": np.zeros_like(shift), f"var{i}": np.ones_like(scale)}
            inputs = [value, *(f"{name}{i}" for name in ("scale", "shift", "mean", "var"))]
            nodes.append(helper.make_node("BatchNormalization", inputs, [f"norm{i}"], epsilon=0.0))
            value = f"norm{i}"
        elif not folded:
            nodes.append(helper.make_node("Mul", [value, f"scale{i}"], [f"times{i}"]))
            nodes.append(helper.make_node("Add", [f"shift{i}", f"times{i}"], [f"plus{i}"]))
            value = f"plus{i}"
        nodes.append(helper.make_node("Relu", [value], [f"relu{i}"]))
        value, channels = f"relu{i}", CHANNELS
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", count, 8, 8])
        for name, count in (("x", 3), (value, CHANNELS))
    ]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layers(folder: Path, *texts: str) -> list[dict[str, tuple[float | None, float]]]:
    """For each step of the chain of files and hubs (entered, accumulated) by layer, on random inputs."""

    def read(text: str) -> SimpleNamespace:
        return SimpleNamespace(name=text, hub=load(folder / f"{Path(text).stem}.onnx"), module=None)

    opening = open_versions([str(folder / text) if text.endswith(".onnx") else text for text in texts], read)
    chain = walk(opening.versions, list(cases((3, 8, 8), None)), opening.names, images=False)
    return [{p.layer: (p.entered, p.accumulated) for p in step.parts if p.layer} for step in chain.steps]


@pytest.mark.parametrize("spelling", ["norm", "scale"])
@pytest.mark.parametrize(
    "texts",
    [
        ("plain.onnx", "plain"),
        ("plain.onnx", "exported.onnx"),
        ("plain.onnx", "folded.onnx"),
        ("folded.onnx", "plain.onnx"),
        ("plain.onnx", "folded.onnx", "folded"),
    ],
    ids=" ".join,
)
def test_a_lossless_change_has_no_error_at_a_layer(spelling: str, texts: tuple[str, ...], tmp_path: Path) -> None:
    onnx.save(network(spelling, folded=False), tmp_path / "plain.onnx")
    onnx.save(network(spelling, folded=True), tmp_path / "folded.onnx")
    export_onnx(load(tmp_path / "plain.onnx"), tmp_path / "exported.onnx")
    for step in layers(tmp_path, *texts):
        assert set(step) == {"Conv.0", "Conv.1"}
        for entered, accumulated in step.values():
            assert entered is not None
            assert max(entered, accumulated) < 1e-6


def test_an_error_in_a_folded_layer_is_found_there(tmp_path: Path) -> None:
    onnx.save(network("norm", folded=False), tmp_path / "plain.onnx")
    wrong = network("norm", folded=True)
    kernel = next(tensor for tensor in wrong.graph.initializer if tensor.name == "kernel1")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1.05), "kernel1"))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    (step,) = layers(tmp_path, "plain.onnx", "wrong.onnx")
    assert step["Conv.0"][1] < 1e-6
    assert 0.02 < step["Conv.1"][1] < 0.08


def test_the_hub_of_an_unfolded_file_computes_what_the_file_computes(tmp_path: Path) -> None:
    onnx.save(network("norm", folded=False), tmp_path / "plain.onnx")
    hub = load(tmp_path / "plain.onnx")
    assert isinstance(hub, Hub)
    assert "BatchNormalization" not in {node.op_type for node in hub.model.graph}
    opening = open_versions([str(tmp_path / "plain.onnx"), "plain"], lambda text: SimpleNamespace(hub=hub, module=None))
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    file, made = (entry.version.look(x) for entry in opening.versions)
    shared = sorted(set(file) & set(made))
    assert len(shared) >= 4
    for name in shared:
        assert difference(name, "x", file[name], made[name]).relative < 1e-5
