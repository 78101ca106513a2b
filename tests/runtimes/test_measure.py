from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekron.runtimes import Measuring, Report, RuntimeFailure, bench, schema
from edgekron.runtimes.agent import environment
from edgekron.runtimes.agent.environment import disturbances, fastest_cores

Write = Callable[..., Path]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def files(write_onnx: Write, write_tflite: Write) -> list[Path]:
    """A file, and one of 1/64 of its MACs, in either runtime."""
    large, little = noise(64, 32, 3, 3), noise(8, 4, 3, 3)
    return [write(k, (32, 32)) for write in (write_onnx, write_tflite) for k in (large, little)]


@pytest.fixture(scope="module")
def report(files: list[Path]) -> Report:
    return bench(files, Measuring(rounds=8, seconds=0.4, seed=3))


@pytest.mark.thorough
def test_far_fewer_macs_are_faster_beyond_doubt(report: Report) -> None:
    assert report.speedups[0].low > 2
    large, little = report.files[2].latency, report.files[3].latency
    assert little.median < large.median


def test_every_round_of_every_file_is_kept_raw(report: Report) -> None:
    for file in report.files:
        assert len(file.rounds) == 8
        assert all(sample > 0 for samples in file.rounds for sample in samples)
        assert file.latency.count == sum(map(len, file.rounds))
        assert file.latency.minimum <= file.latency.p5 <= file.latency.median <= file.latency.p95
        assert file.warm_up > 1
        assert min(file.cold.process, file.cold.runtime, file.cold.load, file.cold.first) > 0


def test_the_report_is_json_and_says_how_it_was_made(report: Report, files: list[Path]) -> None:
    data = json.loads(json.dumps(report.to_json()))
    assert data["format"] == 1
    assert (data["device"], data["threads"], data["seed"]) == ("local", 1, 3)
    assert [file["file"] for file in data["files"]] == [str(file) for file in files]
    assert [file["runtime"]["runtime"] for file in data["files"]] == ["onnxruntime"] * 2 + ["litert"] * 2
    assert data["environment"]["cores"] == os.cpu_count()
    assert data["environment"]["memory"] > 2**20
    assert {"swapped_in", "swapped_out", "load"} <= set(data["before"]) & set(data["after"])
    assert [entry["file"] for entry in data["speedups"]] == [str(file) for file in files[1:]]
    assert "lower quartiles" in data["definitions"]["speedups"]
    quartiles = np.log([[np.quantile(turn, 0.25) for turn in file["nanoseconds"]] for file in data["files"][:2]])
    assert np.exp(np.median(quartiles[0] - quartiles[1])) == pytest.approx(data["speedups"][0]["value"])
    # The figures follow from the raw samples alone.
    first = [1e-9 * sample for samples in data["files"][0]["nanoseconds"] for sample in samples]
    assert np.median(first) == pytest.approx(data["files"][0]["latency"]["median"], rel=1e-6)
    assert len(report.table()) == 4


def test_processes_are_pinned_to_as_many_cores_as_threads(report: Report, files: list[Path]) -> None:
    assert {file.cores for file in report.files} == {tuple(fastest_cores(1) or ())}
    everywhere = bench(files[1:2], Measuring(rounds=1, seconds=0.05, pin=False))
    assert everywhere.files[0].cores == tuple(sorted(os.sched_getaffinity(0)))
    assert everywhere.speedups == ()


def test_memory_grows_from_import_to_load_and_the_peak_is_highest(write_onnx: Write, write_tflite: Write) -> None:
    weights = noise(512, 512, 3, 3)
    report = bench([write_onnx(weights, (8, 8)), write_tflite(weights, (8, 8))], Measuring(rounds=2, seconds=0.1))
    for file in report.files:
        memory = file.memory
        assert memory.file == Path(file.file).stat().st_size >= weights.nbytes
        assert memory.runtime is not None
        assert memory.loaded is not None
        assert memory.peak is not None
        assert memory.steady is not None
        assert memory.runtime > 2**20
        # A file may be mapped and read lazily, but what it holds must be in memory once it has run.
        assert memory.loaded >= memory.runtime
        assert memory.steady - memory.runtime >= 0.9 * weights.nbytes
        assert memory.peak >= max(memory.loaded, memory.steady)


def test_progress_counts_to_the_end(files: list[Path]) -> None:
    steps: list[tuple[int, int]] = []
    bench(files[1:2], Measuring(rounds=3, seconds=0.05), progress=lambda _, done, total: steps.append((done, total)))
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_bad_files_are_refused_by_name_before_anything_is_measured(files: list[Path], tmp_path: Path) -> None:
    short = tmp_path / "short.tflite"
    short.write_bytes(files[2].read_bytes()[:500])
    for bad, words in [(short, "short.tflite"), (tmp_path / "no.onnx", "does not exist"), (tmp_path, "export")]:
        with pytest.raises(RuntimeFailure, match=words):
            bench([files[0], bad], Measuring(rounds=1, seconds=0.05))
    with pytest.raises(RuntimeFailure, match="no file to measure"):
        bench([])
    for words in ({"rounds": 0}, {"seconds": float("nan")}, {"limit": float("inf")}):
        with pytest.raises(RuntimeFailure, match="must all be positive"):
            bench(files[:1], Measuring(**words))


class Answering:
    """A device that gives an answer as it is."""

    name, unit = "the board", "second"

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def put(self, file: Path) -> str:
        return str(file)

    def run_agent(self, request: dict[str, Any], listener: object = None) -> dict[str, Any]:
        return self.answer


def answered(files: int, rounds: list[list[int]], cores: list[int] | None = None) -> Answering:
    tensor = {"name": "x", "shape": [1], "dtype": "float32", "layout": "plain"}
    file = {
        "name": "whatever it says",
        "runtime": {"runtime": "r", "version": "1"},
        "input": tensor,
        "outputs": [],
        "cores": cores,
        "cold": {"process": 1, "runtime": 1, "load": 1, "first": 1},
        "warm_up": 1,
        "settled": True,
        "rounds": rounds,
        "paced": None,
        "memory": dict.fromkeys(("file", "runtime", "loaded", "peak", "steady"), 1),
    }
    answer = {"facts": {}, "before": {}, "during": [], "after": {}, "files": [file] * files}
    schema.check(answer, "measure", "the board")
    return Answering(answer)


@pytest.mark.parametrize(
    ("count", "rounds"), [(1, [[1]] * 2), (3, [[1]] * 2), (2, [[1]]), (2, [[1], []]), (2, [[1], [0]]), (2, [[1], [-4]])]
)
def test_an_answer_to_something_else_is_refused(files: list[Path], count: int, rounds: list[list[int]]) -> None:
    with pytest.raises(RuntimeFailure, match="the board sent an answer to another question"):
        bench(files[:2], Measuring(rounds=2), device=answered(count, rounds))


def test_files_keep_their_names_and_weak_settings_are_said(files: list[Path]) -> None:
    report = bench(files[:2], Measuring(rounds=2, threads=2), device=answered(2, [[1, 2], [3, 4]], [7]))
    assert [file.file for file in report.files] == [str(file) for file in files[:2]]
    few, shared = report.warnings
    assert few.startswith("intervals over no more than 2 rounds promise nothing")
    assert shared.startswith("2 threads share fewer cores")
    assert bench(files[:1], Measuring(rounds=6), device=answered(1, [[1, 2]] * 6)).warnings == ()


def test_a_core_that_sleeps_has_no_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"scaling_cur_freq": {"cpu0": "1500000", "cpu1": "<unknown>"}}
    monkeypatch.setattr(environment, "_each_core", lambda file: texts.get(Path(file).name))
    assert environment.state()["frequency"] == {"cpu0": 1_500_000_000}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"throttled": 0x50000}, {"throttled": 0x50005}, "throttled"),
        ({"swapped_in": 5}, {"swapped_in": 7}, "swapped in (2 times)"),
        ({"core_throttles": 0}, {"core_throttles": 1}, "heat"),
        ({"load": [3.0, 0, 0]}, {}, "busy before"),
        ({"load": [0.1, 0, 0], "swapped_in": 5, "throttled": 0x50000}, {"swapped_in": 5, "throttled": 0x50000}, None),
    ],
)
def test_disturbances_are_named(before: dict[str, object], after: dict[str, object], words: str | None) -> None:
    found = disturbances({"cores": 4, "governor": {"cpu0": "performance"}}, before, after)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
    assert "governor" in disturbances({"governor": {"cpu0": "ondemand"}}, {}, {})[0]
