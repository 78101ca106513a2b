from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekron.runtimes import Measuring, RuntimeFailure, bench, measure
from edgekron.runtimes.devices import LocalDevice

Write = Callable[..., Path]


@pytest.fixture
def local() -> Iterator[LocalDevice]:
    with closing(LocalDevice()) as device:
        yield device


@pytest.fixture
def file(kernel: np.ndarray, write_onnx: Write) -> Path:
    return write_onnx(kernel, (7, 10))


def test_facts_say_what_can_run_here(local: LocalDevice) -> None:
    facts = local.facts()
    assert facts["facts"]["cores"] == os.cpu_count()
    assert facts["facts"]["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert facts["runtimes"]["numpy"] == np.__version__
    assert facts["runtimes"]["onnxruntime"]
    assert facts["disk"]["free"] > 0


def test_a_pace_is_kept_and_one_that_cannot_be_is_said(
    file: Path, write_onnx: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_PACED_SECONDS", 0.2)
    slow = write_onnx(np.ones((256, 256, 3, 3), np.float32), (64, 64))
    report = bench([file, slow], Measuring(rounds=1, seconds=0.05, hertz=100))
    kept, late = (result.paced for result in report.files)
    assert kept is not None
    assert late is not None
    assert (kept.hertz, len(kept.samples)) == (100, 19)
    assert late.samples == ()
    assert any("takes longer than one inference at 100 per second" in warning for warning in report.warnings)
    data = report.to_json()["files"]
    assert data[0]["paced"]["latency"]["count"] == 19
    assert data[1]["paced"] == {"hertz": 100, "latency": None, "nanoseconds": []}


def test_two_measurements_at_once_wait_or_are_refused(local: LocalDevice, file: Path) -> None:
    running, enough = threading.Event(), threading.Event()

    def hold(step: dict[str, Any]) -> None:
        running.set()
        if enough.is_set():
            raise InterruptedError

    fields = {"do": "measure", "threads": 1, "rounds": 200, "seconds": 60, "pin": True, "seed": 0, "hertz": 0.0}
    request = {
        **fields,
        "paced_seconds": 0.0,
        "limit_s": 60,
        "patience": 0,
        "files": [{"path": str(file), "name": "a"}],
    }

    def first() -> None:
        with contextlib.suppress(InterruptedError):
            local.run_agent(request, hold)

    thread = threading.Thread(target=first)
    thread.start()
    assert running.wait(30)
    with pytest.raises(RuntimeFailure, match="measuring already"):
        bench([file], Measuring(rounds=1, seconds=0.05, patience=0))
    texts: list[str] = []

    def listen(text: str, done: int, total: int) -> None:
        texts.append(text)
        enough.set()

    bench([file], Measuring(rounds=1, seconds=0.05, patience=60), progress=listen)
    assert texts[0] == "waiting for another measurement"
    thread.join(30)
    assert not thread.is_alive()


def test_the_agent_ends_with_the_program_that_asked(file: Path, tmp_path: Path) -> None:
    parent = (
        "from edgekron.runtimes import Measuring, bench\n"
        "measuring = Measuring(rounds=500, seconds=100)\n"
        f"bench([{str(file)!r}], measuring, progress=lambda *step: print(*step, flush=True))\n"
    )
    variables = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed program cannot remove its temporary files
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        while b"round 2" not in process.stdout.readline():
            assert process.poll() is None
        (agent,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        assert workers
        os.kill(process.pid, signal.SIGKILL)
    deadline = threading.Event()
    for _ in range(200):
        if not any(map(running, [agent, *workers])):
            break
        deadline.wait(0.05)
    assert not any(map(running, [agent, *workers]))


def running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_bad_commands_and_requests_are_answered(local: LocalDevice, file: Path) -> None:
    for words in ([], ["dance"], ["held"], ["wait", "x"]):
        with pytest.raises(RuntimeFailure, match="is no command of the agent"):
            local._call(words, "describe")
    for words in (["held", "../../etc/passwd"], ["remove", "x"], ["receive", "a.onnx", "0", "1"]):
        with pytest.raises(RuntimeFailure, match="is not the name of a file's content"):
            local._call(words, "held")
    for words in (["drop", "../x"], ["start", "x"], ["wait", "0123", "0"]):
        with pytest.raises(RuntimeFailure, match="is not the name of a job"):
            local._call(words, "start", b"{}\n")
    with pytest.raises(RuntimeFailure, match="there is no job 0123456789abcdef here"):
        local._call(["wait", "0123456789abcdef", "0"], "measure")
    with pytest.raises(RuntimeFailure, match="dance failed on the device with KeyError"):
        local.run_agent({"do": "dance", "limit_s": 5, "patience": 0})


def test_an_interrupted_proof_leaves_no_control_group(
    local: LocalDevice, file: Path, wait_until: Callable[[Callable[[], bool]], bool]
) -> None:
    def groups() -> set[Path]:
        return set(Path("/sys/fs/cgroup").rglob("edgekron-*"))

    before = groups()

    def interrupt(step: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    fields = {"do": "prove", "threads": 1, "seed": 0, "limit": 2**30, "runs": 10**9, "limit_s": 600, "patience": 60}
    with pytest.raises(KeyboardInterrupt):
        local.run_agent({**fields, "file": {"path": str(file), "name": "a"}}, interrupt)
    assert wait_until(lambda: groups() <= before)  # other programs may prove something now
    local.close()
    assert not local.agent.parent.exists()


def test_an_agent_that_dies_at_once_is_quoted(local: LocalDevice, file: Path) -> None:
    local.agent.write_bytes(b"raise SystemExit('no agent here')")
    with pytest.raises(RuntimeFailure, match=r"ended without an answer \(no agent here\)"):
        local.run_agent({"do": "measure", "padding": "x" * 10**6})
