"""``compress --tune`` and ``tune``: the table, the evidence, files that equal their graph, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekron.exporters.tuning import layer, network, race
from edgekron.planning.plan import CompressionPlan


@pytest.fixture(autouse=True)
def short(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(race, "TURN", 0.0)
    monkeypatch.setattr(layer, "HEATS", 1)
    monkeypatch.setattr(layer, "FINAL", 2)
    monkeypatch.setattr(network, "ROUNDS", 2)
    monkeypatch.setattr(network, "TURN", 0.0)


@pytest.fixture
def model(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (16, 3, 3, 3), "b.weight": (32, 16, 3, 3), "c.weight": (32, 32, 3, 3)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) / 9 for name, shape in shapes.items()}
    nodes, value = [], "x"
    for name in weights:
        nodes.append(helper.make_node("Conv", [value, name], [f"{name}/y"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"{name}/y"], [f"{name}/relu"]))
        value = f"{name}/relu"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32, 1, 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_tuned_while_compressed_and_again_later(model, tmp_path, run):
    out = tmp_path / "small"
    code, text, _ = run("compress", model, "--ratio", 2, "--tune", "-o", out)
    assert code == 0
    for words in ("Tuned for onnxruntime", "Tuned for litert", "dense ms", "whole network, dense in", "measured now"):
        assert words in text
    evidence = json.loads((out / "report.json").read_text())["tuning"]
    assert set(evidence["machine"]) == {"onnx", "tflite"}
    plan = CompressionPlan.read(out / "plan.toml")
    for name, found in evidence["layers"].items():
        assert set(plan.layers[name].measured) == set(found["measured"]) == {"onnx", "tflite"}
        for result in found["measured"].values():
            assert result["dense_ms"] > 0
            assert all(one["interval"][0] <= one["ratio"] <= one["interval"][1] for one in result["trials"])
    again = tmp_path / "again"
    words = ("tune", out, "--runtime", "litert", "--original", model, "-o", again)
    code, text, _ = run(*words, "--json")
    assert code == 0
    assert set(json.loads(text)["tuning"]["machine"]) == {"tflite"}
    assert run(*words, "--force")[0] == 0
    for folder in (out, again):
        for kind in ("onnx", "tflite"):
            file = folder.with_suffix(f".{kind}")
            assert run("export", folder, "--to", kind, "-o", file)[0] == 0
            assert run("verify", folder, file, "--tolerance", 1e-4)[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compress", "MODEL", "--ratio", "2", "--runtime", "onnx"], "--runtime says how to tune; give --tune"),
        (["compress", "MODEL", "--ratio", "2", "--no-cache"], "--no-cache says how to tune; give --tune"),
        (["compress", "MODEL", "--ratio", "1.2", "--tune", "--runtime", "torch"], "there is no runtime torch"),
        (["compress", "MODEL", "--ratio", "1.2", "--tune", "--threads", "0"], "--threads 0 must be at least 1"),
        (["tune", "nowhere"], "nowhere is not a folder that 'edgekron compress' wrote"),
    ],
)
def test_refusals(model, tmp_path, run, words, sentence):
    out = tmp_path / "out"
    code, _, error = run(*(str(model) if word == "MODEL" else word for word in words), "-o", out)
    assert (code, sentence in error, error.count("\n")) == (2, True, 1)
    assert not out.exists()


def test_a_folder_is_replaced_only_if_asked(model, tmp_path, run):
    out = tmp_path / "small"
    assert run("compress", model, "--ratio", 2, "-o", out)[0] == 0
    code, _, error = run("tune", out, "--runtime", "onnx")
    assert (code, "--force" in error) == (2, True)
    assert run("tune", out, "--runtime", "onnx", "--force")[0] == 0
    assert "tuning" in json.loads((out / "report.json").read_text())


def test_the_original_has_no_kernels_for_a_network_that_was_trained_since(model, tmp_path, run):
    out = tmp_path / "small"
    assert run("compress", model, "--ratio", 2, "-o", out)[0] == 0
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps({**report, "training": [{"epochs": 1}]}))
    code, _, error = run("tune", out, "--original", model, "-o", tmp_path / "tuned")
    assert (code, error.count("\n")) == (2, 1)
    assert "was trained since it was made of" in error
    assert run("tune", out, "--runtime", "onnx", "-o", tmp_path / "tuned")[0] == 0
