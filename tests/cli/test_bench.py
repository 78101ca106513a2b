"""What ``edgekron bench`` adds on demand: pace, layers, arenas, the proof of memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekron.exporters import layer_times as _layer_times
from edgekron.runtimes import measure

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two convolutions, the first of which is the two stages of a factorized layer."""
    random = np.random.default_rng(0)
    shapes = {"a.stage0.weight": (8, 3, 3, 1), "a.stage1.weight": (16, 8, 1, 3), "b.weight": (16, 16, 3, 3)}
    weights = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "a.stage0.weight"], ["m"], "first", pads=[1, 0, 1, 0]),
        helper.make_node("Conv", ["m", "a.stage1.weight"], ["n"], "second", pads=[0, 1, 0, 1]),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "b.weight"], ["y"], "third", pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 16, 16, 16])],
        weights,
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_everything_on_demand_is_printed_and_written(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Figures are wanted here, not good ones.
    monkeypatch.setattr(measure, "_PACED_SECONDS", 0.2)
    monkeypatch.setattr(_layer_times, "_ROUNDS", 1)
    monkeypatch.setattr(_layer_times, "_SECONDS", 0.01)
    out, tflite = tmp_path / "out.json", tmp_path / "small.tflite"
    assert run("export", file, "--to", "tflite", "-o", tflite)[0] == 0
    words = ["--rounds", 1, "--seconds", 0.05, "--pace", 50, "--layers", "--arena", "--json", out]
    code, printed, _ = run("bench", file, tflite, *words, "--prove-memory", "2 GB")
    assert code == 0
    for title in ("paced", "Time by layer, small.onnx", "Tensor arena", "Proof of memory", "lived"):
        assert title in printed
    report = json.loads(out.read_text())
    assert [entry["paced"]["latency"]["count"] for entry in report["files"]] == [9, 9]
    for layers in report["layers"]:
        assert {"a", "b"} <= set(layers["seconds"])
        assert not any("stage" in name for name in layers["seconds"])
        assert min(layers["seconds"]["a"], layers["seconds"]["b"]) > 0
    assert list(report["arenas"]) == [str(tflite)]
    assert report["arenas"][str(tflite)]["litert"] >= 16 * 16 * 32 * 4
    assert [proof["lived"] for proof in report["proofs"]] == [True, True]
    assert report["proofs"][0]["limit"] == 2 * 10**9


def test_a_file_that_dies_under_the_limit_is_exit_code_1(run: Run, file: Path) -> None:
    code, printed, _ = run("bench", file, "--rounds", 1, "--seconds", 0.05, "--prove-memory", "2MiB")
    assert code == 1
    assert "died" in printed


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--prove-memory", "64"], "has no unit"),
        (["--prove-memory", "64 Mib"], "no unit 'Mib'"),
        (["--pace", "-1"], "must not be negative"),
        (["--on", "adb:$(x)"], "no serial number"),
    ],
)
def test_bad_options_are_one_sentence(run: Run, file: Path, words: list[str], remedy: str) -> None:
    code, _, said = run("bench", file, *words)
    assert code == 2
    assert said.count("\n") == 1
    assert remedy in said
