"""``emulated:pi4`` as a device, with a stand-in for the emulator: a script that runs the program on this machine.

What it cannot show, ARM code and its counts, is in ``test_emulator.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekron.cli.main import main
from edgekron.cli.shared.measured import print_latency, print_memory
from edgekron.runtimes import Measuring, RuntimeFailure, bench
from edgekron.runtimes.agent import environment
from edgekron.runtimes.devices import open_device
from edgekron.runtimes.devices.emulation import Installation
from edgekron.runtimes.devices.emulation.build import link_boards
from edgekron.runtimes.devices.emulation.device import EmulatedDevice
from edgekron.runtimes.devices.emulation.installation import key
from edgekron.runtimes.devices.emulation.results import CLASSES

#: Takes qemu's words, runs the rest with this Python, and writes a count for every inference that was asked for.
STAND_IN = """#!{python}
import json, os, subprocess, sys
words = sys.argv[1:]
start = next(i for i, word in enumerate(words) if word.endswith("/usr/bin/python3.11"))
assert words[:2] == ["-cpu", "cortex-a72"] and "HOME" in os.environ and "PATH" not in os.environ
rest = words[start + 1:]
count = json.loads(rest[-1]).get("count", 0) if rest[-1].startswith("{{") else 0
if "-plugin" in words:
    with open(words[words.index("-plugin") + 1].partition("out=")[2], "w") as out:
        for index in range(count):
            for tag, number in ((1, 7), (2, {first} if index else 999999)):
                out.write(json.dumps({{"tag": tag, **dict.fromkeys({classes}, 0), "instructions": number}}) + "\\n")
{then}
sys.exit(subprocess.run([sys.executable, *rest]).returncode)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Callable[..., Path]:
    """stand_in(then, first) -> an installation's folder; ``then`` is what the emulator does before the program."""
    monkeypatch.setenv("EDGEKRON_CACHE", str(tmp_path / "cache"))

    def install(then: str = "", first: str = "1000") -> Path:
        folder = tmp_path / "cache/emulated/arm64"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "root/usr/bin").mkdir(parents=True)
        qemu = folder / "qemu"
        qemu.write_text(STAND_IN.format(python=sys.executable, first=first, classes=CLASSES, then=then))
        qemu.chmod(0o755)
        link_boards(folder)
        Installation(folder, key(), "qemu", "7.2.22", "3.11", 36, {"onnxruntime": "1"}).write()
        return folder

    return install


@pytest.fixture
def board(stand_in) -> Iterator[EmulatedDevice]:
    stand_in()
    device = open_device("emulated:pi4")
    assert isinstance(device, EmulatedDevice)
    yield device
    device.close()


def test_a_board_that_was_not_built_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKRON_CACHE", str(tmp_path))
    with pytest.raises(
        RuntimeFailure, match=r"emulated:pi4 has not been built .*; run `edgekron devices emulate pi4`\."
    ):
        open_device("emulated:pi4")
    with pytest.raises(RuntimeFailure, match=r"emulated:pi4:usb is no device; use emulated:pi4, or emulated:pi4:ssh\."):
        open_device("emulated:pi4:usb")
    with pytest.raises(RuntimeFailure, match="no emulated board 'pi2'"):
        open_device("emulated:pi2")


def test_instructions_are_counted_and_outputs_compared(board, kernel, write_onnx, write_tflite):
    files = [write_tflite(kernel, (7, 10), free_batch=True), write_onnx(kernel, (7, 10))]
    report = board.count(files, inferences=2)
    assert report.device == "emulated:pi4"
    assert report.board["processor"] == "cortex-a72"
    assert [file.file for file in report.files] == [str(file) for file in files]
    assert [len(file.inferences) for file in report.files] == [2, 2]
    assert [file.instructions for file in report.files] == [1000, 1000]  # the first inference of each is dropped
    assert report.ratios == (1.0, 1.0)
    assert all(file.agreement.differing == 0 and file.agreement.elements > 0 for file in report.files)


def test_nothing_that_needs_a_clock_is_answered(board, kernel, write_onnx):
    with pytest.raises(RuntimeFailure, match=r"emulated:pi4 counts instructions; it has neither times nor memory"):
        bench([write_onnx(kernel, (7, 10))], Measuring(rounds=1, seconds=0.1), device=board)


def test_what_is_read_from_this_machine_is_not_said_of_the_board(board):
    facts = board.facts()
    assert facts["facts"]["emulator"] == "qemu 7.2.22"
    assert facts["facts"]["board"] == "Raspberry Pi 4 Model B"
    assert not {"memory", "swap", "kernel", "governor"} & set(facts["facts"])
    assert facts["state"] == {}


def test_the_arena_is_planned_there(board, kernel, write_tflite):
    file = write_tflite(kernel, (7, 10))
    request = {"do": "arena", "file": {"path": board.put(file), "name": file.name}, "limit_s": 60}
    steps = []
    assert board.run_agent(request, steps.append)["litert"] > 0
    assert steps[0]["text"] == f"planning {file.name}"


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        ("os.abort()", r"the process on emulated:pi4 died \(signal 6"),
        (
            "print('qemu: no such CPU', file=sys.stderr); sys.exit(3)",
            r"died \(exit code 3, last words: qemu: no such CPU",
        ),
        ('print(\'{"ok": false, "error": "no runtime."}\'); sys.exit(1)', r"on emulated:pi4: no runtime\."),
        (
            "open(words[words.index('-plugin') + 1].partition('out=')[2], 'w').close()",
            r"0 of 3 inferences were counted",
        ),
    ],
)
def test_a_board_that_fails_says_how(then, sentence, stand_in, kernel, write_onnx):
    stand_in(then)
    device = open_device("emulated:pi4")
    with pytest.raises(RuntimeFailure, match=sentence):
        device.count([write_onnx(kernel, (7, 10))])
    device.close()


def test_a_board_that_does_not_start_is_to_be_rebuilt(stand_in):
    stand_in("print('E: broken', file=sys.stderr); sys.exit(1)")
    device = open_device("emulated:pi4")
    with pytest.raises(RuntimeFailure, match=r"does not start \(E: broken\); run .* emulate pi4 --rebuild`"):
        device.facts()
    device.close()


def test_bad_input_is_refused_before_anything_runs(board, tmp_path):
    with pytest.raises(RuntimeFailure, match="no file to count"):
        board.count([])
    with pytest.raises(RuntimeFailure, match="none.onnx does not exist"):
        board.count([tmp_path / "none.onnx"])
    with pytest.raises(RuntimeFailure, match="0 inferences cannot be counted"):
        board.count([tmp_path / "none.onnx"], inferences=0)


# The commands


def test_bench_prints_instructions_and_no_times(stand_in, kernel, write_onnx, tmp_path, capsys):
    stand_in(first="1234567 + index")
    first, second = write_onnx(kernel, (7, 10)), write_onnx(kernel, (7, 10))
    out = tmp_path / "counts.json"
    assert main(["bench", str(first), str(second), "--on", "emulated:pi4", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Instructions of one inference, emulated:pi4 (cortex-a72, qemu 7.2.22)" in shown
    assert shown.count("1,234,569") == 2
    assert "reference" in shown
    assert "1.0000" in shown
    assert "as here" in shown
    assert " ms" not in shown
    data = json.loads(out.read_text())
    assert (data["unit"], data["files"][1]["ratio"]) == ("instruction", 1.0)


def test_a_clock_of_instructions_is_shown_as_such(kernel, write_onnx, capsys, monkeypatch):
    report = bench([write_onnx(kernel, (7, 10))], Measuring(rounds=2, seconds=0.02))
    report = replace(report, environment={**report.environment, "clock": "instructions"})
    print_latency(report)
    print_memory(report)
    shown = capsys.readouterr().out
    assert "Instructions, 1 thread" in shown
    assert "instr." in shown
    assert not re.search(r"\d (s|ms|us)\b", shown)
    assert "clock counts instructions" in environment.disturbances(report.environment, {}, {})[0]
    assert "clock" not in environment.describe()
    texts = {"/proc/cmdline": "quiet edgekron.clock=instructions"}
    monkeypatch.setattr(environment, "_text", lambda path: texts.get(str(path), ""))
    assert environment.describe()["clock"] == "instructions"


def test_wrong_outputs_are_said_and_fail(stand_in, kernel, write_onnx, capsys, tmp_path):
    # The stand-in computes with another kernel than this machine does.
    file, other = write_onnx(kernel, (7, 10)), write_onnx(np.float32(2) * kernel, (7, 10))
    stand_in(f"rest[-1] = rest[-1].replace({str(file)!r}, {str(other)!r})")
    assert main(["bench", str(file), "--on", "emulated:pi4"]) == 1
    captured = capsys.readouterr()
    assert "WRONG, 1e+00 from here" in captured.out
    assert "outputs on the board differ from this machine's (355 of 355 elements" in captured.err


def test_bench_adds_arenas_and_says_the_name_that_the_user_gave(
    stand_in, kernel, write_tflite, tmp_path, capsys, monkeypatch
):
    stand_in()
    monkeypatch.chdir(tmp_path)
    assert main(["devices", "add", "pie", "emulated:pi4"]) == 0
    file, out = write_tflite(kernel, (7, 10)), tmp_path / "counts.json"
    assert main(["bench", str(file), "--on", "pie", "--arena", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Instructions of one inference, pie" in shown
    assert "Tensor arena" in shown
    data = json.loads(out.read_text())
    assert data["device"] == "pie"
    assert data["arenas"][str(file)]["litert"] >= 4 * 7 * 10 * (3 + 5)
    assert main(["devices", "remove", "pie"]) == 0  # nothing of it is to be cleaned


def test_a_count_ends_at_its_limit(stand_in, kernel, write_onnx, capsys):
    stand_in("import time; time.sleep(60)")
    assert main(["bench", str(write_onnx(kernel, (7, 10))), "--on", "emulated:pi4", "--limit", "5"]) == 2
    assert "not done on emulated:pi4 in 5 seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--threads", "2"], ["--pace", "5"], ["--layers"], ["--prove-memory", "64MiB"], ["--rounds", "3"], ["--no-pin"]],
)
def test_options_of_a_board_with_a_clock_are_refused(words, stand_in, kernel, write_onnx, capsys):
    stand_in()
    assert main(["bench", str(write_onnx(kernel, (7, 10))), "--on", "emulated:pi4", *words]) == 2
    assert f"{words[0]} says nothing about emulated:pi4" in capsys.readouterr().err


def test_emulate_says_what_is_there(stand_in, capsys):
    folder = stand_in()
    assert main(["devices", "emulate", "pi5"]) == 0
    shown = capsys.readouterr().out
    assert "emulated:pi5 is ready" in shown
    assert "cortex-a76" in shown
    assert main(["devices", "emulate", "pi4", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["device"], data["folder"]) == ("emulated:pi4", str(folder))
    assert main(["devices", "emulate", "pi1"]) == 2
    assert "no emulated board 'pi1'" in capsys.readouterr().err


def test_emulate_refuses_a_machine_without_packages(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGEKRON_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", shutil.which("true"))
    monkeypatch.setenv("PATH", os.devnull)
    assert main(["devices", "emulate", "pi4"]) == 2
    assert "apt-get is not on this machine" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "emulated").iterdir()] == ["lock"]  # nothing half-built is left
