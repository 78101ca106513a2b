from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekron.runtimes import Report, RuntimeFailure, bench
from edgekron.runtimes.environment import disturbances, fastest_cores

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
    return bench(files, rounds=8, seconds=0.4, seed=3)


def test_far_fewer_macs_are_faster_beyond_doubt(report: Report) -> None:
    assert report.speedups[0].low > 2
    large, little = report.files[2].latency, report.files[3].latency
    assert little.p95 < large.p5


def test_a_file_against_itself_is_no_faster(files: list[Path]) -> None:
    report = bench([files[0], files[0]], rounds=10, seconds=0.5)
    assert report.speedups[0].value == pytest.approx(1, abs=0.2)


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
    # The figures follow from the raw samples alone.
    first = [1e-9 * sample for samples in data["files"][0]["nanoseconds"] for sample in samples]
    assert np.median(first) == pytest.approx(data["files"][0]["latency"]["median"], rel=1e-6)
    assert len(report.table()) == 4


def test_processes_are_pinned_to_as_many_cores_as_threads(report: Report, files: list[Path]) -> None:
    assert {file.cores for file in report.files} == {tuple(fastest_cores(1) or ())}
    everywhere = bench(files[1:2], rounds=1, seconds=0.05, pin=False)
    assert everywhere.files[0].cores == tuple(sorted(os.sched_getaffinity(0)))
    assert everywhere.speedups == ()


def test_memory_grows_from_import_to_load_and_the_peak_is_highest(write_onnx: Write, write_tflite: Write) -> None:
    weights = noise(512, 512, 3, 3)
    report = bench([write_onnx(weights, (8, 8)), write_tflite(weights, (8, 8))], rounds=2, seconds=0.1)
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
    bench(files[1:2], rounds=3, seconds=0.05, progress=lambda done, total, _: steps.append((done, total)))
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_bad_files_are_refused_by_name_before_anything_is_measured(files: list[Path], tmp_path: Path) -> None:
    short = tmp_path / "short.tflite"
    short.write_bytes(files[2].read_bytes()[:500])
    for bad, words in [(short, "short.tflite"), (tmp_path / "no.onnx", "does not exist"), (tmp_path, "export")]:
        with pytest.raises(RuntimeFailure, match=words):
            bench([files[0], bad], rounds=1, seconds=0.05)
    with pytest.raises(RuntimeFailure, match="no file to measure"):
        bench([])
    with pytest.raises(RuntimeFailure, match="must all be positive"):
        bench(files[:1], rounds=0)


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
