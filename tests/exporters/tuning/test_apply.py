"""A tuned network: dense layers have their own kernels, files equal the graph, and the plan says what was seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekron.compression.compressor import apply_plan
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.tuning import checked, subjects_of_hub, subjects_of_plan, tune, tuned_compression, tuned_plan
from edgekron.exporters.tuning.network import variants
from edgekron.exporters.tuning.results import DENSE
from edgekron.exporters.verify import cases, compare, open_version
from edgekron.graph import load
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.runtimes.statistics import Interval

SHAPE = (8, 12, 12)
SURE, NEVER = Interval(2.0, 1.9, 2.1), Interval(0.5, 0.4, 0.6)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, stride=2)
        self.classifier = nn.Linear(32, 16)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.relu(x + self.conv2(x))
        return self.classifier(self.conv3(x).mean((2, 3)))


@pytest.fixture(scope="module")
def hub():
    torch.manual_seed(0)
    return load(Block().eval(), input_shape=SHAPE)


@pytest.fixture(scope="module")
def plan():
    line = LayerPlan("kronecker", "f 4x8, c 4x8, h 1x3, w 1x3", (2,))
    return CompressionPlan("block", {"conv2": line, "conv3": line})


def decided(tuning, dense: dict[str, list[str]]):
    """The tuning with made-up ratios: the last way wins, but for the targets of the layers in ``dense``."""
    choices = {}
    for name, choice in tuning.choices.items():
        trials = {}
        for target, result in tuning.results[name].items():
            last = [t for t in result.trials if t.candidate.order == choice.order][-1]
            trials[target] = None if target in dense.get(name, []) else replace(last, ratio=SURE)
        choices[name] = replace(choice, trials=trials)
    return replace(tuning, choices=choices)


def assert_files_equal(hub, folder) -> None:
    export_onnx(hub, folder / "a.onnx")
    export_tflite(hub, folder / "a.tflite")
    reference = open_version(hub)
    for name in ("a.onnx", "a.tflite"):
        rows, _ = compare(reference, open_version(folder / name), cases(reference.input_shape, None), {})
        assert max(row.relative for row in rows) < 1e-5


@pytest.mark.usefixtures("short")
def test_a_plan_is_tuned_before_it_is_fitted(hub, plan, tmp_path):
    subjects = subjects_of_plan(hub, plan, fitted=False)
    names = [subject.name for subject in subjects]
    assert names == ["conv2", "conv3"]
    by_name = {subject.name: subject for subject in subjects}
    assert (by_name["conv2"].added, by_name["conv2"].activation) == (True, "Relu")
    assert (by_name["conv3"].added, by_name["conv3"].activation) == (False, "")
    tuning = decided(tune(subjects, ["onnx", "tflite"]), {"conv2": ["onnx", "tflite"], "conv3": ["tflite"]})
    tuned = tuned_plan(plan, tuning, subjects)
    assert tuned.layers["conv2"].method == "dense"
    assert "not faster than dense" in tuned.layers["conv2"].reason
    assert "dense in" in tuned.layers["conv2"].measured["tflite"]
    assert tuned.layers["conv3"].forms["tflite"] == DENSE
    assert "2.00 times as fast as dense [1.90, 2.10], onnxruntime" in tuned.layers["conv3"].measured["onnx"]
    assert CompressionPlan.from_toml(tuned.to_toml()) == tuned
    made = apply_plan(hub, tuned).hub
    assert np.array_equal(made.layer("conv2").kernel, hub.layer("conv2").kernel)
    assert made.layer("conv2").factorized is None
    assert_files_equal(made, tmp_path)


@pytest.mark.usefixtures("short")
def test_a_finished_compression_is_tuned(hub, plan, tmp_path):
    old = apply_plan(hub, plan)
    subjects = subjects_of_hub(old.hub)
    assert [s.key() for s in subjects] == [s.key() for s in subjects_of_plan(hub, plan, fitted=False)]
    tuning = decided(tune(subjects, ["onnx", "tflite"]), {"conv2": ["onnx", "tflite"]})
    new = tuned_compression(old, tuning, subjects, hub)
    assert np.array_equal(new.hub.layer("conv2").kernel, hub.layer("conv2").kernel)
    assert np.array_equal(new.hub.layer("conv2").bias, hub.layer("conv2").bias)
    assert new.report.layers["conv2"].method == new.plan.layers["conv2"].method == "dense"
    assert new.report.macs.ratio < old.report.macs.ratio
    assert new.report.tuning["layers"]["conv2"]["forms"] == {"onnx": ["dense"], "tflite": ["dense"]}
    assert_files_equal(new.hub, tmp_path)
    without = tuned_compression(old, tuning, subjects, None)
    assert np.array_equal(without.hub.layer("conv2").kernel, old.hub.layer("conv2").kernel)
    assert without.plan.layers["conv2"].method == "kronecker"
    assert without.plan.layers["conv2"].forms == {"onnx": DENSE, "tflite": DENSE}
    assert without.report.layers["conv2"].compressed.macs == hub.layer("conv2").dense_macs


@pytest.mark.usefixtures("short")
def test_every_variant_of_the_whole_network_runs(hub, plan):
    subjects = subjects_of_plan(hub, plan, fitted=True)
    tuning = decided(tune(subjects, ["onnx"]), {})
    found = variants(tuning, tuning.choices, subjects, "onnx")
    assert next(iter(found)) == "tuned"
    first = checked(tuning, hub, subjects)
    assert set(first.network["onnx"].ratios) == set(found)
    assert first.to_json()["network"]["onnx"]["chosen"] in {*found, "dense"}
    assert first.measured == tuning.measured + 1
    again = checked(tuning, hub, subjects)
    assert (again.measured, again.network) == (tuning.measured, first.network)


@pytest.mark.usefixtures("short")
def test_a_network_that_is_not_faster_stays_dense(hub, plan, monkeypatch):
    from edgekron.exporters.tuning.race import Race

    subjects = subjects_of_plan(hub, plan, fitted=True)
    tuning = decided(tune(subjects, ["onnx"]), {})
    monkeypatch.setattr(Race, "ratio", lambda *_: NEVER)
    result = checked(tuning, hub, subjects, use_cache=False)
    assert result.network["onnx"].fastest is None
    assert result.to_json()["network"]["onnx"]["chosen"] == "dense"
    assert all(choice.dense for choice in result.choices.values())
    tuned = tuned_plan(plan, result, subjects)
    assert {line.method for line in tuned.layers.values()} == {"dense"}
