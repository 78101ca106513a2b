"""The commands one after the other, from every kind of model, and what they say to bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekron import models

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained-like network as .pt2 and .onnx, and images for it."""
    path = tmp_path_factory.mktemp("commands")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()
    x = torch.zeros(2, 3, 20, 18)
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path / "net.pt2")
    torch.onnx.export(program, dynamo=True, verbose=False).save(path / "net.onnx")  # type: ignore[union-attr]
    rng = np.random.default_rng(0)
    np.savez(
        path / "images.npz", images=rng.integers(0, 256, (64, 20, 18, 3), dtype=np.uint8), labels=np.arange(64) % 4
    )
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", ["net.pt2", "net.onnx"])
def test_files_go_the_whole_way(folder: Path, tmp_path: Path, source: str, run: Run) -> None:
    out, data = tmp_path / "small", folder / "images.npz"
    code, text, _ = run("compress", folder / source, "--ratio", 1.5, "--data", data, "-o", out, "--json")
    assert code == 0
    assert json.loads(text)["totals"]["macs"]["ratio"] >= 1.5
    for kind in ("onnx", "tflite"):
        file = tmp_path / f"small.{kind}"
        assert run("export", out, "--to", kind, "-o", file)[0] == 0
        code, text, _ = run("verify", out, file, "--tolerance", 1e-4, "--data", data, "--json")
        verdict = json.loads(text)
        assert (code, verdict["passed"]) == (0, True)
        assert 0 <= verdict["worst_relative"] <= 1e-4
        # The original is another network, and the tolerance says so.
        assert run("verify", folder / source, file, "--tolerance", 1e-4)[0] == 1
        code, text, _ = run("evaluate", file, "--data", data)
        assert code == 0
        assert "64" in text
    again = tmp_path / "again"
    assert run("compress", folder / source, "--plan", out / "plan.toml", "--data", data, "-o", again)[0] == 0
    first, second = (json.loads((path / "report.json").read_text()) for path in (out, again))
    assert first["totals"] == second["totals"]


def test_exported_files_run_without_edgekron(tmp_path: Path, run: Run) -> None:
    for kind in ("onnx", "tflite"):
        assert run("export", "resnet20", "--to", kind, "-o", tmp_path / f"r.{kind}")[0] == 0
    code = """
import sys; sys.modules["edgekron"] = None
import numpy as np, onnxruntime
from ai_edge_litert.interpreter import Interpreter
x = np.random.default_rng(0).standard_normal((1, 1, 28, 28)).astype(np.float32)
session = onnxruntime.InferenceSession("r.onnx", providers=["CPUExecutionProvider"])
a = session.run(None, {session.get_inputs()[0].name: x})[0]
i = Interpreter("r.tflite"); i.allocate_tensors()
i.set_tensor(i.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1)); i.invoke()
b = i.get_tensor(i.get_output_details()[0]["index"])
print(float(np.abs(a - b).max() / np.abs(a).max()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1e-5


def unsupported(path: Path) -> Path:
    """An ONNX file with an operator that no exporter here translates to TFLite."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "conv.weight"], ["y"], name="conv"),
            onnx.helper.make_node("Det", ["y"], ["z"], name="determinant"),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 5, 5])],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 2])],
        [onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "conv.weight")],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, path / "det.onnx")
    return path / "det.onnx"


@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_one_sentence_and_leaves_nothing(folder: Path, tmp_path: Path, run: Run) -> None:
    data = (folder / "net.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    (tmp_path / "cut.pt2").write_bytes((folder / "net.pt2").read_bytes()[:1000])
    proto = onnx.load(folder / "net.onnx")
    weight = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, tmp_path / "nan.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 20, 18, 3), np.uint8))
    np.savez(tmp_path / "other.npz", images=np.zeros((9, 8, 8, 1), np.uint8))
    out = tmp_path / "out"
    compress = ("-o", out, "--ratio", 1.5)
    cases = [
        (("compress", "sixkonv", *compress), "did you mean sixconv"),
        (("compress", tmp_path / "no.onnx", *compress), "no.onnx"),
        (("compress", tmp_path / "cut.onnx", *compress), "cut.onnx"),
        (("compress", tmp_path / "cut.pt2", *compress), "cut.pt2"),
        (("compress", tmp_path / "nan.onnx", *compress), "the weights of layer 0 contain NaN"),
        (("compress", folder / "net.onnx", "-o", out, "--ratio", 9999), "the best that this network can is"),
        (("compress", folder / "net.onnx", "-o", out), "say how much to compress"),
        (("compress", folder / "net.onnx", *compress, "--energy", 0.5), "say how much to compress"),
        (("compress", folder / "net.onnx", "-o", out, "--energy", 0.5, "--evbmf"), "only one of"),
        (("compress", folder / "net.onnx", "-o", out, "--error", 1.5), "a number between 0 and 1"),
        (("compress", folder / "net.onnx", "-o", out, "--method", "tr", "--energy", 0.5), "or a ratio for tr"),
        (("compress", folder / "net.onnx", "-o", tmp_path / "taken", "--ratio", 2), "--force"),
        (("compress", folder / "net.onnx", *compress, "--data", "fashion-mnst"), "no data set"),
        (("compress", folder / "net.onnx", *compress, "--data", tmp_path / "none.npz"), "holds no image"),
        (("compress", folder / "net.onnx", *compress, "--data", tmp_path / "empty"), "holds no image"),
        (
            ("compress", folder / "net.onnx", *compress, "--data", tmp_path / "other.npz"),
            "model's input is [3, 20, 18]",
        ),
        (("compress", folder / "net.onnx", "-o", out, "--plan", tmp_path / "no.toml"), "no.toml"),
        (("compress", folder / "net.onnx", "-o", out, "--plan", "p.toml", "--method", "tt"), "leave --method out"),
        (("export", unsupported(tmp_path), "--to", "tflite", "-o", tmp_path / "d.tflite"), "determinant"),
        (("export", folder / "net.onnx", "--to", "onnx", "-o", tmp_path / "d.tflite"), "should end in .onnx"),
        (("export", folder / "net.onnx", "--to", "onnx", "-o", tmp_path / "d.onnx", "--opset", 3), "opset 3"),
        (("verify", folder / "net.onnx", tmp_path / "no.tflite"), "no.tflite"),
        (("inspect", tmp_path), "compress"),
    ]
    before = sorted(tmp_path.iterdir())
    for words, said in cases:
        code, text, error = run(*words)
        assert code == 2, words
        assert said in error, (words, error)
        assert error.startswith("edgekron: error: ")
        assert error.count("\n") == 1, error
        assert not text
    assert sorted(tmp_path.iterdir()) == before


def test_every_model_is_listed(run: Run) -> None:
    code, text, _ = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(text)["models"]}
    assert code == 0
    assert set(rows) == set(models.NETWORKS)
    assert rows["resnet32-cifar"]["parameters"] == 464_154
    assert rows["resnet32-cifar"]["macs"] == 68_862_592


def test_inspect_says_what_stays_dense(run: Run) -> None:
    code, text, _ = run("inspect", "mobilenetv2-cifar", "--json")
    report = json.loads(text)
    assert code == 0
    frozen = [row for row in report["layers"] if row["frozen"]]
    assert len(frozen) == 17
    assert all("depthwise" in row["frozen"] for row in frozen)
    assert report["totals"]["macs"] == sum(row["macs"] for row in report["layers"])
    assert report["peak_activation_bytes"] > 0
