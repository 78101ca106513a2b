"""A layer is measured once on a machine, and again when anything that decides its speed is another."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgekron.algebra import Geometry
from edgekron.errors import UserError
from edgekron.exporters.tuning import cache, tuner
from edgekron.exporters.tuning.results import Result
from edgekron.exporters.tuning.tuner import targets_of, tune

from .conftest import subject
from .test_results import FAST, SLOW


@pytest.fixture
def measured(monkeypatch) -> list[tuple[str, str]]:
    """The (layer, target) that were measured, by a stop watch that says what it is told."""
    seen: list[tuple[str, str]] = []

    def measure(one, target, *, threads):
        seen.append((one.name, target))
        return Result(1e-3, (FAST, SLOW))

    monkeypatch.setattr(tuner, "measure_layer", measure)
    return seen


def test_a_second_run_measures_nothing(measured):
    layers = [subject(name="a"), subject(name="twin of a"), subject(name="b", size=(5, 5))]
    first = tune(layers, ["onnx", "tflite"])
    assert measured == [("a", "onnx"), ("b", "onnx"), ("a", "tflite"), ("b", "tflite")]
    assert first.measured == 4
    second = tune(layers, ["onnx", "tflite"])
    assert (len(measured), second.measured) == (4, 0)
    assert second.to_json() == first.to_json()
    assert second.choices["twin of a"].forms == {"onnx": ("grouped", "mix"), "tflite": ("grouped", "mix")}
    assert {conditions.runtime for conditions in second.conditions.values()} == {"onnxruntime", "litert"}


@pytest.mark.parametrize(
    "change",
    [
        {"size": (9, 9)},
        {"bias": False},
        {"added": True},
        {"first": True},
        {"activation": "Relu"},
        {"geometry": Geometry()},
    ],
)
def test_another_layer_is_measured(measured, change):
    tune([subject()], ["onnx"])
    tune([replace(subject(), **change)], ["onnx"])
    assert len(measured) == 2


def test_other_threads_another_version_and_a_wish_are_measured(measured, monkeypatch):
    for threads in (1, 2, 1):
        tune([subject()], ["onnx"], threads=threads)
    assert len(measured) == 2
    tune([subject()], ["onnx"], use_cache=False)
    assert len(measured) == 3
    monkeypatch.setattr(tuner.metadata, "version", lambda name: "another")
    tune([subject()], ["onnx"])
    assert len(measured) == 4


@pytest.mark.parametrize("damage", ["", "{}", '{"key": 1}', "null", "[]", "half"])
def test_a_damaged_measurement_is_made_again(measured, damage):
    tune([subject()], ["onnx"])
    (file,) = cache.folder().glob("*.json")
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2] if damage == "half" else damage)
    assert tune([subject()], ["onnx"]).measured == 1
    assert json.loads(file.read_text()) == json.loads(whole)


def test_a_cache_that_cannot_be_written_is_no_obstacle(measured, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tune([subject()], ["onnx"]).measured == 1


def test_the_cache_lies_where_the_user_wants_it(monkeypatch, tmp_path):
    assert cache.folder() == tmp_path / "cache" / "edgekron" / "tuning"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "edgekron" / "tuning"


def test_names_of_runtimes():
    assert targets_of("litert, onnx,tflite") == ["tflite", "onnx"]
    for wrong in ("", "onnx,torch", ","):
        with pytest.raises(UserError, match="the runtimes are onnx and litert"):
            targets_of(wrong)
    with pytest.raises(UserError, match="--threads 0 must be at least 1"):
        tune([], ["onnx"], threads=0)
