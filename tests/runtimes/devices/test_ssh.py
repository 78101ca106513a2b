"""Boards behind a real OpenSSH server on the loopback, and everything that goes wrong with one."""

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
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekron.runtimes import Measuring, RuntimeFailure, bench, measure
from edgekron.runtimes.devices import Target, open_device
from edgekron.runtimes.devices.board import Board, LostError
from edgekron.runtimes.devices.ssh import open_ssh

if TYPE_CHECKING:
    from .conftest import Server

Write = Callable[..., Path]
Wait = Callable[[Callable[[], bool]], bool]


@pytest.fixture
def board(server: Server) -> Iterator[Board]:
    with closing(open_device(server.name, server.target())) as device:
        assert isinstance(device, Board)
        yield device


@pytest.fixture
def file(kernel: np.ndarray, write_onnx: Write) -> Path:
    return write_onnx(kernel, (7, 10))


def request(**changes: Any) -> dict[str, Any]:
    fields = {"do": "measure", "files": [], "threads": 1, "rounds": 2, "seconds": 0.1, "pin": True, "seed": 0}
    return {**fields, "hertz": 0.0, "paced_seconds": 0.0, "limit_s": 120, "patience": 0, **changes}


def test_a_file_is_measured_and_nothing_is_left(
    server: Server, board: Board, file: Path, write_tflite: Write, kernel: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_PACED_SECONDS", 0.2)
    twin = write_tflite(kernel, (7, 10))
    report = bench([file, twin], Measuring(rounds=3, seconds=0.2, hertz=50), device=board)
    assert report.device == server.name
    assert [result.file for result in report.files] == [str(file), str(twin)]
    assert [len(result.rounds) for result in report.files] == [3, 3]
    assert len(report.during) == 3
    for result in report.files:
        assert result.paced is not None
        assert len(result.paced.samples) == 9
        assert result.memory.steady
    assert len(list((server.folder / "files").iterdir())) == 2
    board.close()
    assert list((server.folder / "files").iterdir()) == []
    assert list((server.folder / "jobs").iterdir()) == []


def test_what_is_there_is_not_sent_again_and_what_is_half_there_is_continued(
    server: Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    call = Board._call

    def counted(self: Board, words: list[str], what: str, data: bytes | None = b"", *rest: Any, **more: Any) -> Any:
        if what == "receive":
            sent.append(len(data or b""))
        return call(self, words, what, data, *rest, **more)

    monkeypatch.setattr(Board, "_call", counted)
    size = file.stat().st_size
    with closing(open_ssh("b", server.name[4:], server.target(keep=True))) as board:
        path = Path(board.put(file))
        assert path.read_bytes() == file.read_bytes()
    half = path.with_name(path.name + ".part")
    with closing(open_ssh("b", server.name[4:], server.target())) as board:
        board.put(file)
        assert sent == [size]
        board._sent.clear()
        path.rename(half)
        os.truncate(half, size // 2)
        board.put(file)
        assert sent == [size, size - size // 2]
        assert path.read_bytes() == file.read_bytes()
        board._sent.clear()
        path.rename(half)
        half.write_bytes(b"x" * size)
        with pytest.raises(RuntimeFailure, match="damaged on its way"):
            board.put(file)
        assert not half.exists()


def test_the_result_survives_a_cut_connection(server: Server, board: Board, file: Path) -> None:
    cuts: list[int] = []

    def cut(step: dict[str, Any]) -> None:
        steps.append(step["text"])
        if step["text"] == "round 2 of 6":
            for process in server.connections():
                os.kill(process, signal.SIGKILL)
                cuts.append(process)

    steps: list[str] = []
    path = board.put(file)
    answer = board.run_agent(request(files=[{"path": path, "name": "small.onnx"}], rounds=6, seconds=0.6), cut)
    assert cuts
    assert [len(result["rounds"]) for result in answer["files"]] == [6]
    # Every step is heard once, however often the connection was cut.
    assert steps == ["warming up small.onnx", *(f"round {i} of 6" for i in range(1, 7)), "done"]


def jobs(server: Server) -> list[int]:
    return [int((job / "alive").read_text()) for job in (server.folder / "jobs").glob("*") if (job / "alive").exists()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in text.split()]


def test_an_agent_that_is_killed_is_reported_and_its_workers_end(
    server: Server, board: Board, file: Path, wait_until: Wait
) -> None:
    workers: list[int] = []

    def kill(step: dict[str, Any]) -> None:
        if step["text"].startswith("round 1"):
            (job,) = jobs(server)
            workers.extend(children(job))
            os.kill(job, signal.SIGKILL)

    path = board.put(file)
    with pytest.raises(RuntimeFailure, match="was killed on the device"):
        board.run_agent(request(files=[{"path": path, "name": "small.onnx"}], rounds=50, seconds=20), kill)
    assert workers
    assert wait_until(lambda: not any(map(alive, workers)))


def test_an_interrupted_measurement_leaves_nothing_running(
    server: Server, board: Board, file: Path, wait_until: Wait
) -> None:
    started: list[int] = []

    def interrupt(step: dict[str, Any]) -> None:
        if step["text"].startswith("round 1"):
            started.extend(jobs(server))
            raise KeyboardInterrupt

    path = board.put(file)
    with pytest.raises(KeyboardInterrupt):
        board.run_agent(request(files=[{"path": path, "name": "small.onnx"}], rounds=50, seconds=20), interrupt)
    assert started
    assert wait_until(lambda: not any(map(alive, started)))
    assert list((server.folder / "jobs").iterdir()) == []


def test_no_connection_outlives_a_program_that_is_killed(server: Server, wait_until: Wait, tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from edgekron.runtimes.devices import Target, open_device\n"
        f"device = open_device({server.name!r}, {server.target()!r})\n"
        "print('open', flush=True); time.sleep(600)\n"
    )
    assert wait_until(lambda: not server.connections())
    variables = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed program cannot remove its temporary files
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert server.connections()
        process.kill()
    assert wait_until(lambda: not server.connections())


def test_two_measurements_at_once_are_refused_by_name(server: Server, board: Board, file: Path) -> None:
    path = board.put(file)
    words = {"files": [{"path": path, "name": "small.onnx"}], "rounds": 40, "seconds": 20}
    running, refused = threading.Event(), threading.Event()

    def hold(step: dict[str, Any]) -> None:
        running.set()
        if refused.is_set():
            raise InterruptedError

    def first() -> None:
        with contextlib.suppress(InterruptedError):
            board.run_agent(request(**words), hold)

    thread = threading.Thread(target=first)
    thread.start()
    assert running.wait(30)
    with (
        closing(open_device(server.name, server.target())) as other,
        pytest.raises(RuntimeFailure, match=r"measuring already \(measure, process \d+, since"),
    ):
        other.run_agent(request(**words))
    refused.set()
    thread.join(30)
    assert not thread.is_alive()


def test_work_beyond_its_time_is_given_up(board: Board, file: Path) -> None:
    path = board.put(file)
    with pytest.raises(RuntimeFailure, match="longer than its limit of 1 seconds"):
        board.run_agent(request(files=[{"path": path, "name": "small.onnx"}], rounds=1000, seconds=900, limit_s=1))


def test_a_file_that_cannot_be_opened_is_named_as_the_user_names_it(board: Board, tmp_path: Path) -> None:
    broken = tmp_path / "it's $(broken); rm -rf.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(RuntimeFailure, match=r"it's \$\(broken\); rm -rf.onnx cannot be opened by ONNX Runtime"):
        bench([broken], Measuring(rounds=1, seconds=0.05), device=board)


def test_words_reach_the_remote_shell_quoted(server: Server, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    folder = f"{tmp_path}/$(touch {canary}); touch {canary}; '"
    with closing(open_device(server.name, server.target(folder=folder))) as board:
        assert board.facts()["disk"]["folder"] == folder
    assert Path(folder).is_dir()
    assert not canary.exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"key": "stranger"}, r"refuses every key.*try: ssh -F \S+ -l \S+ -p \d+ 127\.0\.0\.1"),
        ({"hosts": "nobody"}, "host key that is not known here"),
        ({"hosts": "changed"}, "another key than it had.*ssh-keygen -R 127.0.0.1"),
    ],
)
def test_keys_that_do_not_fit_are_refused(server: Server, config: dict[str, str], words: str) -> None:
    with pytest.raises(RuntimeFailure, match=words):
        open_device(server.name, server.target(ssh_config=server.write_config("bad", **config)))


def test_a_wrong_host_is_named(server: Server) -> None:
    for place, words in [
        (f"{server.name.rpartition(':')[0]}:1", "cannot be reached .*refused"),
        ("ssh:nobody@does-not-exist.invalid", "is no known host"),
    ]:
        with pytest.raises(RuntimeFailure, match=words):
            open_device(place, Target(place, ssh_config=str(server.home / "config")))


def test_a_lost_network_is_a_lost_connection(server: Server, board: Board) -> None:
    said = "ssh: Could not resolve hostname kitchen.local: Temporary failure in name resolution"
    assert isinstance(board._transport.explain(255, said), LostError)
    assert not isinstance(board._transport.explain(255, "Host key verification failed."), LostError)


@pytest.mark.parametrize(
    "place", ["-oProxyCommand=touch x", "a b", "host;ls", "u@h:x", "-l@host", "$(ls)", "@host", ""]
)
def test_what_is_no_place_never_reaches_ssh(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("something was started"))
    with pytest.raises(RuntimeFailure, match="no place for SSH|there is no device"):
        open_device(f"ssh:{place}")


def test_a_board_without_python_or_with_one_too_old_says_so(server: Server, tmp_path: Path) -> None:
    old = tmp_path / "old"
    pretend = "import sys\nsys.version_info = (3, 7, 3)\n"
    old.write_text(f'#!/bin/sh\nshift; code=$1; shift\nexec {sys.executable} -c \'{pretend}\'"$code" "$@"\n')
    old.chmod(0o755)
    for python, words in [
        ("python-nowhere", "has no python-nowhere; install it there"),
        (str(old), r"Python 3\.7 is too old for the agent; install Python 3\.9"),
    ]:
        with pytest.raises(RuntimeFailure, match=words):
            open_device(server.name, server.target(python=python))


def test_a_missing_runtime_names_the_command_that_installs_it(server: Server, tmp_path: Path, file: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(
        "#!/bin/sh\n# A Python whose onnxruntime cannot be imported.\n"
        f'PYTHONPATH={tmp_path / "path"} exec {sys.executable} "$@"\n'
    )
    bare.chmod(0o755)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules['onnxruntime'] = None\nsys.executable = {str(bare)!r}\n"
    )
    with (
        closing(open_device(server.name, server.target(python=str(bare)))) as board,
        pytest.raises(RuntimeFailure, match="ONNX Runtime cannot be imported.*pip install onnxruntime"),
    ):
        bench([file], Measuring(rounds=1, seconds=0.05), device=board)


def test_a_full_disk_is_said_before_anything_is_sent(server: Server, tmp_path: Path, file: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted by this user")
    try:
        with (
            closing(open_device(server.name, server.target(folder=str(disk)))) as board,
            pytest.raises(RuntimeFailure, match="the disk of the device is full"),
        ):
            board.put(file)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_target_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="there is no device 'x'; use local"):
        open_device("x", Target("telnet:host"))
