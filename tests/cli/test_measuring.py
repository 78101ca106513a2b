"""``edgekron bench`` and ``edgekron evaluate``, called as the program calls them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekron.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def call(*words: object) -> int:
    return main([str(word) for word in words])


def write_linear(path: Path, weights: np.ndarray) -> Path:
    """Scores W x of images of one channel."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1, 6, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path, weights: np.ndarray) -> Path:
    return write_linear(tmp_path / "linear.onnx", weights)


def test_bench_prints_a_row_a_file_and_writes_the_report(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    assert call("bench", file, file, "--rounds", 3, "--seconds", 0.1, "--json", out) == 0
    printed = capsys.readouterr().out
    assert printed.count("reference") == 1
    assert "Cold start" in printed
    report = json.loads(out.read_text())
    assert [len(entry["nanoseconds"]) for entry in report["files"]] == [3, 3]
    assert report["speedups"][0]["low"] <= report["speedups"][0]["value"] <= report["speedups"][0]["high"]


def test_evaluate_agrees_with_numpy(
    file: Path, weights: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (250, 6, 5), np.uint8)
    labels = random.integers(0, 4, 250)
    data, out = tmp_path / "data.npz", tmp_path / "out.json"
    np.savez(data, images=images, labels=labels)
    other = write_linear(tmp_path / "other.onnx", weights[:, [1, 0, 2, 3]])
    assert call("evaluate", file, other, "--data", data, "--threads", 1, "--json", out) == 0
    from edgekron.models import datasets

    x = next(datasets.load(str(data)).batches(250))[0].reshape(250, -1)
    predicted = (x @ weights).argmax(axis=1)
    first, second = json.loads(out.read_text())["files"]
    assert first["correct"] == int(np.sum(predicted == labels))
    assert first["total"] == 250
    assert first["agreement"] == 1.0
    assert second["agreement"] == pytest.approx(np.mean(predicted >= 2))
    assert f"{first['top1']:.2%}" in capsys.readouterr().out
    assert call("evaluate", file, "--data", data, "--limit", 7, "--json", out, "--force") == 0
    assert json.loads(out.read_text())["files"][0]["total"] == 7


@pytest.mark.parametrize("command", ["bench", "evaluate"])
def test_bad_input_is_one_sentence_with_a_remedy(
    command: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, images=np.zeros((3, 6, 5), np.uint8), labels=np.zeros(3, np.int64))
    rest: list[object] = ["--data", data] if command == "evaluate" else ["--rounds", 1, "--seconds", 0.05]
    short = tmp_path / "short.onnx"
    short.write_bytes(file.read_bytes()[:60])
    taken = tmp_path / "taken.json"
    taken.write_text("kept")
    for words, remedy in [
        (["resnet20"], "edgekron export resnet20 --to onnx"),
        ([file, tmp_path / "model.pt2"], "edgekron export"),
        ([tmp_path / "missing.tflite"], "does not exist"),
        ([file, short], r"short\.onnx cannot be opened"),
        ([file, "--json", taken], "exists"),
        ([file, "--threads", 0], "at least 1|positive"),
        ([file, "--data", "nowhere"], "no data set")
        if command == "evaluate"
        else ([file, "--on", "moon"], "no device"),
    ]:
        assert call(command, *rest, *words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert re.search(remedy, said)
    assert taken.read_text() == "kept"
