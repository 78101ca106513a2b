"""Joined outputs in a comparison: each part is shown, bounded, and said by name where it is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekron.cli.main import main
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.quantize import Quantization
from edgekron.exporters.verify import Difference, compare, open_version
from tests.detectors import Joined, Segmentation, hub, images

pytestmark = pytest.mark.filterwarnings("ignore")
SCORES, BOXES = "sigmoid [:, 4:9]", "[:, 0:4]"


def with_scores(path: Path, target: Path, factor: float) -> None:
    """The ONNX file with the kernel and bias of its scores times ``factor``."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("classes."):
            tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(proto, target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector in files: as it is, in int8, with scores that are one number, with scores of another sign."""
    path = tmp_path_factory.mktemp("joined")
    np.savez(path / "images.npz", inputs=images(8))
    export(hub(Joined), path / "net.onnx")
    export(hub(Joined), path / "net.tflite")
    export(hub(Joined), path / "int8.tflite", ExportSettings(Quantization("int8", [images(8)])))
    with_scores(path / "net.onnx", path / "one.onnx", 0.0)
    with_scores(path / "net.onnx", path / "far.onnx", -20.0)
    return path


def verified(capsys: pytest.CaptureFixture[str], folder: Path, *words: object) -> tuple[int, dict[str, object]]:
    names = [str(folder / word) if str(word).endswith((".onnx", ".tflite")) else str(word) for word in words]
    code = main(["verify", *names, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("files", [("net.onnx", "int8.tflite"), ("net.tflite", "int8.tflite")])
def test_every_part_is_a_row(folder: Path, files: tuple[str, str]) -> None:
    rows, _ = compare(*(open_version(folder / name) for name in files), [("images", images(8))], {})
    whole, boxes, scores = rows
    assert whole.part is None
    assert boxes.part.endswith(BOXES)
    # A file of TFLite and one of ONNX call values alike.
    assert scores.part == SCORES
    assert scores.name == f"{whole.name}: {SCORES}"
    assert scores.max_abs < 0.05 < boxes.max_abs == whole.max_abs
    assert not any(row.lost() for row in rows)


def test_bounds_hold_for_each_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores are off by everything; in the output as a whole the error is 60 dB below the pixels."""
    data = ("--data", folder / "images.npz")
    code, told = verified(capsys, folder, "net.onnx", "one.onnx", *data, "--tolerance", 0.1)
    assert code == 1
    whole, boxes, scores = told["outputs"][-3:]
    assert whole["relative"] < 0.01
    assert boxes["relative"] == 0
    assert scores["relative"] > 0.1
    assert told["worst_relative"] == max(row["relative"] for row in told["outputs"] if row["part"] == SCORES)
    code, told = verified(capsys, folder, "net.onnx", "int8.tflite", *data, "--sqnr", 35)
    assert (code, told["lost"]) == (0, [])
    assert told["sqnr_db"] == min(row["sqnr_db"] for row in told["outputs"])


@pytest.mark.parametrize(("file", "how"), [("one.onnx", "all its values are one number"), ("far.onnx", "its SQNR is")])
def test_a_lost_part_is_said_by_name(file: str, how: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", folder / "images.npz")
    code, told = verified(capsys, folder, "net.onnx", file, *data)
    (sentence,) = told["lost"]
    assert SCORES in sentence
    assert f"is LOST in {file}: {how}" in sentence
    # Float, and no bound: told, but no failure. With any bound that is kept, a failure.
    assert (code, told["passed"]) == (0, True)
    code, told = verified(capsys, folder, "net.onnx", file, *data, "--tolerance", 1e9)
    assert (code, told["passed"]) == (1, False)
    # In a chain as well.
    code, told = verified(capsys, folder, "net.onnx", file, "net.tflite", *data)
    assert any(SCORES in sentence for sentence in told["lost"])


def test_int8_fails_without_a_bound(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The int8 file of a network that was given scores of one number, against the network before."""
    path = tmp_path / "lost.tflite"
    assert main(["export", str(folder / "one.onnx"), "--to", "tflite", "--dtype", "int8", "--data",
                 str(folder / "images.npz"), "-o", str(path)]) == 0  # fmt: skip
    capsys.readouterr()
    code, told = verified(capsys, folder, "net.onnx", path, "--data", folder / "images.npz")
    assert code == 1
    assert SCORES in told["lost"][0]


def test_the_table_shows_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(folder / "images.npz")]
    files = [str(folder / name) for name in ("net.onnx", "net.tflite", "int8.tflite")]
    for chosen in (files[::2], files):
        assert main(["verify", *chosen, *data]) == 0
        shown = capsys.readouterr().out
        assert SCORES in shown
        assert BOXES in shown


def test_an_output_of_one_value_has_one_row() -> None:
    version = open_version(hub(Segmentation))
    (row,), _ = compare(version, version, [("images", images(2))], {})
    assert row.part is None


def test_when_a_value_is_lost() -> None:
    def row(sqnr: float, part: str | None, **more: bool) -> Difference:
        return Difference("y", "images", 1, 1, sqnr, 1, part=part, **more)

    assert row(2.9, "scores").lost()
    assert not row(3.1, "scores").lost()
    assert not row(2.9, "scores").lost(2)
    # An output as a whole is lost only where it is one number.
    assert not row(2.9, None).lost()
    assert row(20, None, one_number=True).lost()
    assert not row(20, None, one_number=True, varies=False).lost()
