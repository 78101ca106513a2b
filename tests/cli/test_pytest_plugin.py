"""The sample project of the documentation, run by pytest as its user would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekron.runtimes.check import blocks

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parents[2] / "docs/examples/budget"
# Loaded by name, whether or not this installation registers it already.
PLUGIN = ("-p", "no:edgekron", "-p", "edgekron.cli.pytest_plugin", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """A copy of the example with its two files exported: one convolution each, the dense one of twice the channels."""
    shutil.copytree(EXAMPLE, pytester.path, dirs_exist_ok=True)
    (pytester.path / "build").mkdir()
    for name, channels in (("small", 8), ("dense", 16)):
        shape = [1, 3, 8, 8]
        kernel = np.ones((channels, 3, 3, 3), np.float32)
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"])],
            name,
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, channels, 6, 6])],
            [numpy_helper.from_array(kernel, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, pytester.path / f"build/{name}.onnx")
    return pytester.path


def add(project: Path, limit: str) -> None:
    path = project / "budget.toml"
    path.write_text(path.read_text().replace('file_size = "600 kB"', f'file_size = "600 kB"\n{limit}'))


def test_a_kept_budget_passes_and_is_in_the_xml(project: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess(*PLUGIN, "--junitxml", "out.xml").assert_outcomes(passed=1)
    text = (project / "out.xml").read_text()
    assert 'name="small.file_size" value="pass: file size: ' in text
    assert 'name="small.operators.Transpose" value="pass' in text


def test_a_broken_limit_fails_with_what_was_measured(project: Path, pytester: pytest.Pytester) -> None:
    path = project / "budget.toml"
    path.write_text(path.read_text().replace('"600 kB"', '"600 B"'))
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the budget is broken", "small: file size: * B, allowed is at most 600 B"])


@pytest.mark.parametrize(("way", "outcome"), [("skip", "skipped"), ("fail", "failed")])
def test_an_inconclusive_check_does_as_the_project_wants(
    way: str, outcome: str, project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_SECONDS", 0.05)  # too few blocks are inconclusive, however long they are
    add(project, 'latency_median = "1 s"')
    path = project / "budget.toml"
    path.write_text(path.read_text().replace('"60 s"', '"1 us"').replace("attempts = 2", "attempts = 1"))
    pytester.makeini(f"[pytest]\nedgekron_inconclusive = {way}\n")
    result = pytester.runpytest_inprocess(*PLUGIN, "-rs")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*the check is inconclusive*only 1 of 6 measurements fitted into*"])


def test_bad_settings_and_devices_are_said(project: Path, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(*PLUGIN, "--edgekron-on", "moon")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no device 'moon'*"])
    pytester.makeini("[pytest]\nedgekron_inconclusive = perhaps\n")
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*edgekron_inconclusive is 'perhaps'; it must be skip or fail*"])
