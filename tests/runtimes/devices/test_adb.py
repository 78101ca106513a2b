"""The adb transport, against a stand-in for the ``adb`` program that runs its commands on this machine.

It speaks adb's command line (get-state, shell, push), its words and its exit codes. What it cannot show is a phone.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgekron.runtimes import Measuring, RuntimeFailure, bench
from edgekron.runtimes.agent.store import default_folder
from edgekron.runtimes.devices import Target, open_device
from edgekron.runtimes.devices.benchmark_model import BenchmarkModelDevice, parse

Write = Callable[..., Path]

ADB = """#!/bin/sh
serial=$2 command=$3
shift 3
case $serial in
locked) echo "error: device unauthorized." >&2; exit 1 ;;
gone) echo "adb: device 'gone' not found" >&2; exit 1 ;;
far) echo "error: device offline" >&2; exit 1 ;;
esac
case $command in
get-state) echo device ;;
shell) exec sh -c "$*" ;;
push) exec cp "$1" "$2" ;;
esac
"""

#: The report of the official program, as it prints it.
REPORT = """\
STARTING!
Log parameter values verbosely: [0]
Graph: [{graph}]
Loaded model {graph}
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
The input model file size (MB): 4.2
Initialized session in 12.5ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=31 first=18535 curr=16162 min=15994 max=18535 avg=16201.4 std=450

Running benchmark for at least 1 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=62 first=16180 curr=16112 min=15987 max=16900 avg={mean} std=180

Inference timings in us: Init: 12518, First inference: 18535, Warmup (avg): 16201.4, Inference (avg): {mean}
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory \
footprint of the model at runtime. Take the information at your discretion.
Memory footprint delta from the start of the tool (MB): init=3.5 overall=7.25
"""


@pytest.fixture
def adb(tmp_path: Path) -> str:
    path = tmp_path / "adb"
    path.write_text(ADB)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A benchmark_model that takes 16 ms, and 8 ms for a file whose content ends in an odd byte."""
    path = tmp_path / "benchmark_model"
    path.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "graph = next(word[8:] for word in sys.argv if word.startswith('--graph='))\n"
        "assert '--num_threads=2' in sys.argv\n"
        "data = open(graph, 'rb').read()\n"
        "if data[4:8] != b'TFL3':\n    sys.exit('ERROR: Failed to load model ' + graph)\n"
        "mean = 8000.5 if data[-1] % 2 else 16001\n"
        f"sys.stderr.write({REPORT!r}.format(graph=graph, mean=mean))\n"
    )
    path.chmod(0o755)
    return str(path)


def test_a_device_with_python_is_a_board(adb: str, tmp_path: Path, kernel: np.ndarray, write_onnx: Write) -> None:
    folder = tmp_path / "data it's"
    target = Target("adb:emulator-5554", adb=adb, python=sys.executable, folder=str(folder))
    with closing(open_device("phone", target)) as device:
        report = bench([write_onnx(kernel, (7, 10))], Measuring(rounds=2, seconds=0.1), device=device)
        assert (report.device, len(report.files[0].rounds)) == ("phone", 2)
        assert device.facts()["runtimes"]["numpy"] == np.__version__
    assert list((folder / "files").iterdir()) == []


def test_the_official_program_measures_where_no_python_is(
    adb: str, program: str, tmp_path: Path, kernel: np.ndarray, write_tflite: Write
) -> None:
    files = [tmp_path / "slow.tflite", tmp_path / "fast.tflite"]
    for file, last in zip(files, (b"\0", b"\1"), strict=True):
        file.write_bytes(write_tflite(kernel, (7, 10)).read_bytes() + last)
    folder = tmp_path / "data"
    target = Target("adb:phone", adb=adb, folder=str(folder), benchmark_model=program)
    with closing(open_device("phone", target)) as device:
        report = bench(files, Measuring(rounds=3, seconds=0.3, threads=2), device=device)
        assert report.files[0].rounds == ((0.016001,),) * 3
        assert report.files[1].latency.median == pytest.approx(0.0080005)
        assert report.speedups[0].value == pytest.approx(2, rel=1e-3)
        assert report.files[0].cold.total is None
        assert (report.files[0].cold.load, report.files[0].cold.first) == (0.012518, 0.018535)
        assert report.files[0].memory.file == files[0].stat().st_size
        assert report.files[0].runtime["samples"] == "mean of each process"
        bad = tmp_path / "bad.tflite"
        bad.write_bytes(b"nothing")
        for file, words in [(tmp_path / "x.onnx", "runs these"), (bad, r"bad\.tflite: .*Failed to load model")]:
            file.touch()
            with pytest.raises(RuntimeFailure, match=words):
                bench([file], Measuring(rounds=1, seconds=0.1, threads=2), device=device)
        with pytest.raises(RuntimeFailure, match="has no paced inferences; install Python"):
            bench(files, Measuring(hertz=10), device=device)
        (lock,) = (default_folder() / "phones").glob("*/lock")
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(RuntimeFailure, match="measuring already"):
                bench(files, Measuring(rounds=1, threads=2, patience=0), device=device)
        with pytest.raises(RuntimeFailure, match=r"longer than its limit of 1e-06 seconds"):
            bench(files, Measuring(rounds=1, threads=2, limit=1e-6), device=device)
    assert list(folder.iterdir()) == []


def test_what_was_kept_on_a_device_without_python_can_be_removed(adb: str, program: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    target = Target("adb:phone", adb=adb, folder=str(folder), benchmark_model=program, keep=True)
    with closing(open_device("phone", target)) as device:
        device.put(tmp_path / "adb")
    other = folder / "somebody's own"
    other.touch()
    assert len(list(folder.iterdir())) == 3
    with closing(open_device("phone", target)) as device:
        assert isinstance(device, BenchmarkModelDevice)
        device.clean()
        assert list(folder.iterdir()) == [other]
        other.unlink()
        device.clean()
    assert not folder.exists()


def test_the_report_of_the_official_program_is_read() -> None:
    printed = parse(REPORT.format(graph="x.tflite", mean="1.62e+04"))
    assert (printed.init, printed.first, printed.mean) == (12518000, 18535000, 16200000)
    assert printed.warm_up == 31
    with pytest.raises(RuntimeFailure, match="no times; its last words: ERROR: no model"):
        parse("STARTING!\nERROR: no model\n")
    with pytest.raises(RuntimeFailure, match=r"last words: a  word"):
        parse("a \x1bword")
    for mean in ("1.2.3", "1e999"):
        with pytest.raises(RuntimeFailure, match="printed times that are none"):
            parse(REPORT.format(graph="x.tflite", mean=mean))


@pytest.mark.parametrize(
    ("serial", "words"),
    [
        ("locked", "does not trust this machine yet"),
        ("gone", "is not there; see: adb devices"),
        ("far", "device's answer is missing .*device offline"),
        ("-e", "no serial number"),
        ("a b", "no serial number"),
        ("$(ls)", "no serial number"),
    ],
)
def test_a_device_that_cannot_be_used_says_why(adb: str, serial: str, words: str) -> None:
    with pytest.raises(RuntimeFailure, match=words):
        open_device("phone", Target(f"adb:{serial}", adb=adb))


def test_a_missing_adb_is_named() -> None:
    with pytest.raises(RuntimeFailure, match="needs /nowhere/adb; install it"):
        open_device("phone", Target("adb:x", adb="/nowhere/adb"))
