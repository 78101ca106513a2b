"""``edgekron check`` from the budget file to exit codes and files; real runs where they are short."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekron.runtimes.check import KINDS, blocks, checker, read_budget
from edgekron.runtimes.check.blocks import MeasuredBlock, Run
from edgekron.runtimes.check.sampling import Instruments

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/check.schema.json").read_text())
FACTS = {"processor": "Abacus | 3", "cores": 4, "memory": 2**32, "governor": {"cpu0": "performance"}}


def write_convs(path: Path, layers: int) -> Path:
    random = np.random.default_rng(0)
    kernels = [(random.normal(size=(8, 8, 3, 3)) / 8).astype(np.float32) for _ in range(layers)]
    nodes = [
        helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"conv{i}", pads=[1, 1, 1, 1])
        for i in range(layers)
    ]
    shape = [1, 8, 16, 16]
    graph = helper.make_graph(
        nodes,
        "convs",
        [helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{layers}", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernel, f"w{i}") for i, kernel in enumerate(kernels)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def budget(tmp_path: Path) -> Callable[[str], Path]:
    """``budget(limits)`` for small.onnx of two convolutions with its dense.onnx of forty."""
    write_convs(tmp_path / "small.onnx", 2)
    write_convs(tmp_path / "dense.onnx", 40)

    def write(limits: str) -> Path:
        path = tmp_path / "budget.toml"
        path.write_text(
            'format = 1\nbaseline = "baselines.json"\n[models.small]\nfile = "small.onnx"\nreference = "dense.onnx"\n'
            f"[models.small.limits]\n{limits}\n"
        )
        return path

    return write


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Blocks without measuring: a millisecond for the model, two for its reference, on the machine of ``facts``."""
    settings: dict[str, object] = {"facts": FACTS, "milliseconds": 1.0}

    def measure(files: list[Path], device: object, threads: int, index: int, arena: bool = False) -> MeasuredBlock:
        memory = dict.fromkeys(("file", "runtime", "loaded", "peak", "steady"), 10_000_000)
        runs = [
            Run(((1e-3 * scale * (1 + 1e-4 * index),) * 3,), memory, {"runtime": "abacus", "version": "3.0"})
            for scale, _ in zip((settings["milliseconds"], 2.0), files, strict=False)
        ]
        return MeasuredBlock(tuple(runs), settings["facts"], (), ("the abacus squeaks",), None)

    monkeypatch.setitem(checker.check.__kwdefaults__, "instruments", Instruments(measure))
    return settings


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ('file_size = "1 MB"\nlatency_vs_reference = 0.6', 0),
        ('file_size = "1 MB"\nlatency_vs_reference = 0.4', 1),
        ("latency_vs_reference = 0.5", 3),
    ],
)
def test_each_verdict_has_its_code_and_its_files(
    limits: str, code: int, budget: Callable[[str], Path], measured: dict[str, object], run: Command, tmp_path: Path
) -> None:
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "junit", "markdown")}
    words = [word for kind, path in out.items() for word in (f"--{kind}", path)]
    assert run("check", budget(limits), *words)[0] == code
    data = json.loads(out["json"].read_text())
    jsonschema.validate(data, SCHEMA)
    verdict = {0: "pass", 1: "fail", 3: "inconclusive"}[code]
    assert (data["verdict"], data["exit_code"]) == (verdict, code)
    ratio = data["models"][0]["limits"][-1]
    assert ratio["value"] == pytest.approx(0.5, rel=1e-3)
    assert ratio["verdict"] == verdict
    suite = ET.parse(out["junit"]).getroot().find("testsuite")
    assert suite is not None
    assert suite.get("tests") == str(limits.count("="))
    assert (suite.get("failures"), suite.get("skipped")) == (str(int(code == 1)), str(int(code == 3)))
    text = out["markdown"].read_text()
    assert "Abacus \\| 3" in text
    assert "the abacus squeaks" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    # Nothing is replaced unasked.
    assert run("check", budget(limits), "--json", out["json"])[0] == 2


def test_a_baseline_is_written_and_compared_with_on_the_same_machine(
    budget: Callable[[str], Path], measured: dict[str, object], run: Command, tmp_path: Path
) -> None:
    path = budget("latency_vs_baseline = 1.05")
    code, _, error = run("check", path)
    assert code == 2
    assert "make one with --write-baseline" in error
    assert run("check", path, "--write-baseline")[0] == 0
    assert run("check", path)[0] == 0
    measured["milliseconds"] = 1.1
    assert run("check", path)[0] == 1
    measured["facts"] = {**FACTS, "processor": "Abacus 4"}
    code, printed, _ = run("check", path)
    assert code == 3
    assert "the baseline is from another machine (processor Abacus 4, not Abacus | 3)" in printed
    assert run("check", path, "--write-baseline", "--baseline", tmp_path / "baselines.json")[0] == 0
    assert len(json.loads((tmp_path / "baselines.json").read_text())["machines"]) == 2
    assert run("check", path)[0] == 0


@pytest.mark.parametrize(
    ("limits", "words", "said"),
    [
        ('latency_medain = "1 ms"', [], "did you mean 'latency_median'?"),
        ('latency_median = "1 fortnight"', [], "no unit 'fortnight'"),
        ('instructions = "1 M"', [], "measures time"),
        ('file_size = "1 kB"', ["--model", "smal"], "did you mean 'small'?"),
        ('file_size = "1 kB"', ["--on", "moon"], "no device 'moon'"),
        ('file_size = "1 kB"', ["--write-baseline", "--json", "/proc/none/x"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(
    limits: str, words: list[str], said: str, budget: Callable[[str], Path], measured: dict[str, object], run: Command
) -> None:
    code, _, error = run("check", budget(limits), *words)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_baseline_needs_a_place_before_anything_is_measured(
    budget: Callable[[str], Path], measured: dict[str, object], run: Command
) -> None:
    path = budget('latency_median = "1 ms"')
    path.write_text(path.read_text().replace('baseline = "baselines.json"', ""))
    code, printed, error = run("check", path, "--write-baseline")
    assert (code, printed) == (2, "")
    assert "names no baseline file" in error


def test_missing_files_are_named(budget: Callable[[str], Path], run: Command, tmp_path: Path) -> None:
    assert "none.toml cannot be read" in run("check", tmp_path / "none.toml")[2]
    path = budget("latency_vs_reference = 1.0")
    (tmp_path / "dense.onnx").unlink()
    code, _, error = run("check", path)
    assert code == 2
    assert "dense.onnx of small does not exist" in error


def test_what_a_file_tells_needs_no_measurement(budget: Callable[[str], Path], run: Command) -> None:
    assert run("check", budget('file_size = "10 kB"\noperators = { Conv = 2, Transpose = 0 }'))[0] == 0
    code, printed, _ = run("check", budget("operators = { Conv = 1 }"))
    assert code == 1
    assert "operators: Conv" in printed
    assert "verdict: fail" in printed


def test_memory_and_accuracy_are_measured_for_real(
    budget: Callable[[str], Path], run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_SECONDS", 0.05)  # latencies are not asked for
    path = budget('memory_peak = "2 GB"\nmemory_runtime = "1 MB"\ntop1 = "50 %"')
    random = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    labels = np.array([0, 0, 0, 1])
    np.savez(data, images=random.integers(0, 256, (4, 6, 5), np.uint8), labels=labels)
    weights = np.zeros((30, 4), np.float32)
    linear = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1, 6, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(linear, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "small.onnx")
    path.write_text(path.read_text().replace("reference =", f'data = "{data}"\nreference ='))
    out = tmp_path / "out.json"
    assert run("check", path, "--json", out)[0] == 1
    found = {limit["limit"]: limit for limit in json.loads(out.read_text())["models"][0]["limits"]}
    assert {key: limit["verdict"] for key, limit in found.items()} == {
        "memory_peak": "pass",
        "memory_runtime": "fail",
        "top1": "pass",
    }
    assert found["top1"]["value"] == 0.75
    assert found["memory_peak"]["value"] > found["memory_runtime"]["value"] > 1e7


@pytest.mark.thorough
def test_a_file_that_is_far_slower_is_found_for_real(budget: Callable[[str], Path], run: Command) -> None:
    path = budget("latency_vs_reference = 0.7")
    # Time enough for a machine with other work; six starts of each file say enough.
    text = path.read_text().replace("[models.small]", '[measure]\ntime = "900 s"\n[models.small]', 1)
    path.write_text(text)
    assert run("check", path)[0] == 0
    swapped = {"small.onnx": "dense.onnx", "dense.onnx": "small.onnx"}
    path.write_text(re.sub(r"(small|dense)\.onnx", lambda name: swapped[name.group()], text))
    assert run("check", path)[0] == 1


def test_examples_use_options_that_exist(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("check", "--help")
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for name in ("check.md", "examples/github-actions.yml"):
        text = (ROOT / "docs" / name).read_text().replace("\\\n", " ")
        lines = re.findall(r"edgekron check (.*?)(?: \|\||#|$)", text, re.MULTILINE)
        used = {word for line in lines for word in shlex.split(line.replace("`", " ")) if word.startswith("--")}
        assert used
        assert used <= known


def test_the_example_budget_is_one() -> None:
    budget = read_budget(ROOT / "docs/examples/budget/budget.toml")
    devices = {*budget.models[0].by_device}
    assert devices == {"emulated:pi4", "ssh:pi@raspberrypi"}
    text = (ROOT / "docs/check.md").read_text()
    assert [key for key in KINDS if f"`{key}`" not in text] == []
