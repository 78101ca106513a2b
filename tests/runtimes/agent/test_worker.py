from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.agent.connection import Connection
from edgekron.runtimes.agent.worker import PROTOCOL
from edgekron.runtimes.archive import archive
from edgekron.runtimes.devices import LocalDevice, open_device

if TYPE_CHECKING:
    import numpy as np

Write = Callable[..., Path]
Start = Callable[..., Connection]


@pytest.fixture
def file(kernel: np.ndarray, write_onnx: Write) -> Path:
    return write_onnx(kernel, (7, 10))


def gone(pid: int, patience: float = 20) -> bool:
    """Whether a process ends (or is only waiting to be reaped) before patience does."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_the_archive_runs_alone_with_nothing_of_the_project_installed(tmp_path: Path, small: Path) -> None:
    packed = tmp_path / "agent.pyz"
    packed.write_bytes(archive())
    requests = [
        {"do": "hello"},
        {"do": "load", "file": str(small), "threads": 1, "cores": None},
        {"do": "time", "count": 3, "seed": 0},
        {"do": "memory"},
        {"do": "quit"},
        {"do": "hello"},
    ]
    # -I: no path of ours; a finder of the installed project must not be asked before the archive.
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", str(packed), "work"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 4  # nothing after quit
    assert all(answer["ok"] for answer in answers)
    assert len(answers[2]["nanoseconds"]) == 3
    assert set(answers[3]["memory"]) == {"file", "runtime", "loaded", "peak", "steady"}
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time" in line}
    assert "edgekron.runtimes.agent.backends.session" in imported
    assert not {"torch", "edgekron.runtimes.measure", "edgekron.algebra"} & imported


def test_answers_stay_json_while_the_process_prints() -> None:
    noisy = (
        "import os, threading, time\n"
        "def noise():\n"
        "    while True:\n"
        "        os.write(1, b'noise'); print('noise', flush=True); time.sleep(0.001)\n"
        "from edgekron.runtimes.agent import worker\n"
        "start = worker.serve\n"
        "def serve(requests, answers):\n"
        "    threading.Thread(target=noise, daemon=True).start(); start(requests, answers)\n"
        "worker.serve = serve\n"
        "worker.main()\n"
    )
    with Connection([sys.executable, "-c", noisy], None, "noise") as connection:
        for _ in range(50):
            assert connection.ask("hello")["protocol"] == PROTOCOL


def test_bad_requests_are_answered_and_the_worker_goes_on(worker: Connection, file: Path) -> None:
    for request, words in [
        ({"do": "dance"}, "unknown request 'dance'"),
        ({"do": "time", "count": 1, "seed": 0}, "no model is open"),
        ({"do": "load", "file": "nowhere.onnx", "threads": 1, "cores": None}, "nowhere.onnx does not exist"),
        ({"do": "load"}, "load failed with TypeError"),
    ]:
        with pytest.raises(RuntimeFailure, match=words):
            worker.ask(request.pop("do"), **request)
    worker.ask("load", file=str(file), threads=1, cores=None)
    with pytest.raises(RuntimeFailure, match="is open already"):
        worker.ask("load", file=str(file), threads=1, cores=None)
    assert worker.ask("time", count=2, seed=0)["nanoseconds"]


@pytest.mark.parametrize("line", ["", "nonsense", "[1]", "{", '"hello"'])
def test_a_line_that_is_no_request_is_answered(device: LocalDevice, tmp_path: Path, line: str) -> None:
    packed = tmp_path / "agent.pyz"
    packed.write_bytes(archive())
    done = subprocess.run(
        [sys.executable, packed, "work"], input=line + "\n", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["ok"] is False


def test_a_worker_is_pinned_before_the_runtime_starts_threads(worker: Connection, file: Path) -> None:
    core = min(os.sched_getaffinity(0))
    assert worker.ask("load", file=str(file), threads=2, cores=[core])["cores"] == [core]
    for task in Path(f"/proc/{worker.pid}/task").iterdir():
        assert os.sched_getaffinity(int(task.name)) == {core}


def test_a_worker_ends_when_its_input_closes(start: Start, file: Path) -> None:
    connection = start()
    connection.ask("load", file=str(file), threads=1, cores=None)
    connection.close()
    assert gone(connection.pid)


def test_a_worker_ends_when_its_parent_is_killed(device: LocalDevice, file: Path, tmp_path: Path) -> None:
    parent = (
        "import sys, time\n"
        "from edgekron.runtimes.agent.connection import Connection\n"
        f"connection = Connection([sys.executable, {str(device.agent)!r}, 'work'], None, 'a test')\n"
        f"connection.ask('load', file={str(file)!r}, threads=1, cores=None)\n"
        "print(connection.pid, flush=True); time.sleep(600)\n"
    )
    variables = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed program cannot remove its temporary files
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        process.kill()
    assert gone(pid)


def test_a_process_that_dies_is_reported_with_how(start: Start) -> None:
    with start("model.onnx") as connection:
        os.kill(connection.pid, signal.SIGKILL)
        with pytest.raises(RuntimeFailure, match=r"model.onnx: the process died during 'hello' \(signal SIGKILL"):
            connection.ask("hello")


def test_a_worker_that_does_not_answer_is_killed(start: Start, file: Path) -> None:
    with start("model.onnx") as connection:
        connection.ask("load", file=str(file), threads=1, cores=None)
        with pytest.raises(RuntimeFailure, match=r"no answer to 'time' in 0.2 seconds"):
            connection.ask("time", count=10**8, seed=0, timeout=0.2)
        assert gone(connection.pid)


def test_a_command_that_is_no_worker_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="cannot be started"):
        Connection(["/nonexistent/python"], None, "model.onnx")
    with pytest.raises(RuntimeFailure, match=r"died during 'hello'.*last words: broken"):
        Connection([sys.executable, "-c", "raise SystemExit('broken')"], None, "model.onnx")
    with pytest.raises(RuntimeFailure, match="there is no device 'moon'"):
        open_device("moon")
