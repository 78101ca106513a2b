"""Files in smaller types on the command line: export, verify, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

IMAGES = "fashion-mnist:calibration"


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_int8_file_goes_the_whole_way(tmp_path: Path, kind: str, run: Run) -> None:
    file, data = tmp_path / f"r.{kind}", ("--data", IMAGES)
    export = ("export", "resnet20", "--to", kind, "-o", file, "--dtype", "int8", "--integer-io", *data, "--images", 32)
    code, text, error = run(*export, "--json")
    assert (code, error) == (0, "")
    said = json.loads(text)
    # Whether int8 is slower than float32 depends on the machine.
    notices = [notice for notice in said["notices"] if "times as long as float32" not in notice]
    assert (said["dtype"], notices) == ("int8", [])
    assert said["bytes"] == file.stat().st_size
    verify = ("verify", "resnet20", file, *data, "--images", 16)
    code, text, _ = run(*verify, "--sqnr", 25, "--agreement", 90, "--json")
    verdict = json.loads(text)
    assert (code, verdict["passed"], verdict["precision"]) == (0, True, "int8")
    assert verdict["sqnr_db"] >= 25
    assert [row["case"] for row in verdict["outputs"]] == ["16 images"]
    code, text, _ = run(*verify, "--sqnr", 90)
    assert code == 1
    assert "SQNR of an output on the images" in text
    assert "BELOW 90" in text
    assert "relative error of an output" not in text
    code, text, _ = run("verify", "resnet20", file)
    assert code == 0
    assert "give --data" in text


def test_bad_requests_are_one_sentence(tmp_path: Path, run: Run) -> None:
    export = ("export", "resnet20", "--to", "onnx", "-o", tmp_path / "r.onnx")
    for words, said in (
        ((*export, "--dtype", "int8"), "give --data"),
        ((*export, "--integer-io"), "integers need --dtype int8"),
        ((*export, "--data", IMAGES), "needs no images"),
        (("verify", "resnet20", "resnet20", "--sqnr", 30), "give --data"),
    ):
        code, text, error = run(*words)
        assert (code, text, error.count("\n")) == (2, "", 1)
        assert said in error
    assert list(tmp_path.iterdir()) == []
