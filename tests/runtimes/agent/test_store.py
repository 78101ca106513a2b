"""The agent's folder: what arrives, what stays, what is refused, without any connection."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.agent.store import Store, follow

DATA = bytes(range(256)) * 40
NAME = f"{hashlib.sha256(DATA).hexdigest()}.onnx"
JOB = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_file_arrives_in_pieces(store: Store) -> None:
    assert store.held(NAME) == (0, False)
    with pytest.raises(RuntimeFailure, match=f"100 of {len(DATA)} bytes"):
        store.receive(NAME, 0, len(DATA), io.BytesIO(DATA[:100]))
    assert store.held(NAME) == (100, False)
    store.receive(NAME, 100, len(DATA), io.BytesIO(DATA[100:] + b"what follows is not taken"))
    assert store.held(NAME) == (len(DATA), True)
    assert store.file(NAME).read_bytes() == DATA
    store.receive(NAME, 0, len(DATA), io.BytesIO(b""))  # it is there
    store.remove([NAME, NAME])
    assert store.held(NAME) == (0, False)


def test_a_damaged_file_is_thrown_away(store: Store) -> None:
    with pytest.raises(RuntimeFailure, match="damaged on its way"):
        store.receive(NAME, 0, len(DATA), io.BytesIO(DATA[::-1]))
    assert store.held(NAME) == (0, False)


class FullDisk(io.BytesIO):
    """Room ends while the file arrives."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeFailure, match="the disk of the device is full"):
        store.receive(NAME, 0, len(DATA), FullDisk())
    usage = shutil.disk_usage(store.folder)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=len(DATA)))
    with pytest.raises(RuntimeFailure, match="the disk of the device is full"):
        store.receive(NAME, 0, len(DATA), io.BytesIO(DATA))


@pytest.mark.parametrize("name", ["../x", "a.onnx", f"{'0' * 64}.txt", f"{'0' * 64}.onnx/..", "", f"{'0' * 64}.onnx\n"])
def test_only_names_of_contents_are_files(store: Store, name: str) -> None:
    with pytest.raises(RuntimeFailure, match="is not the name of a file's content"):
        store.file(name)


@pytest.mark.parametrize("name", ["..", "0123", "0" * 17, "ABCDEF0123456789", f"{JOB}\n"])
def test_only_identities_are_jobs(store: Store, name: str) -> None:
    with pytest.raises(RuntimeFailure, match="is not the name of a job"):
        store.job(name)


def test_messages_are_followed_from_where_one_was(store: Store) -> None:
    store.job(JOB).mkdir()
    messages = [{"step": {"done": index}} for index in range(5)]
    text = "".join(json.dumps(message) + "\n" for message in messages)
    (store.job(JOB) / "messages").write_text(text + '{"ok": true}\n')
    assert list(follow(store, JOB, 0)) == [*messages, {"ok": True}]
    assert list(follow(store, JOB, 3)) == [*messages[3:], {"ok": True}]
    (store.job(JOB) / "messages").write_text(text + '{"ok": tr')
    assert list(follow(store, JOB, 5)) == [
        {"ok": False, "error": "the measurement was killed on the device; its memory may have run out."}
    ]


def test_a_job_runs_as_long_as_its_lock_is_held(store: Store) -> None:
    store.job(JOB).mkdir()
    assert store.running(JOB) is None
    with (store.job(JOB) / "alive").open("w") as alive:
        alive.write("4711")
        alive.flush()
        assert store.running(JOB) is None
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert store.running(JOB) == 4711
    assert store.running(JOB) is None


def test_what_nobody_fetched_goes_after_a_week(store: Store) -> None:
    old, new = store.job(JOB), store.job(JOB[::-1])
    parts = [store.file(name).with_suffix(".onnx.part") for name in (NAME, f"{'0' * 64}.onnx")]
    whole = store.file(NAME)
    for folder in (old, new):
        folder.mkdir()
        (folder / "messages").touch()
    for path in (*parts, whole):
        path.touch()
    for path in (old, parts[0], whole):
        os.utime(path, (time.time() - 8 * 24 * 3600,) * 2)
    store.tidy()
    assert [path.exists() for path in (old, new, *parts, whole)] == [False, True, False, True, True]
    store.clean()
    assert not store.folder.exists()


def test_cleaning_leaves_the_lock_to_the_measurement_that_holds_it(store: Store) -> None:
    with store.alone("first", 0, lambda: None):
        store.clean()
        with (
            pytest.raises(RuntimeFailure, match=r"measuring already \(first, process"),
            store.alone("second", 0, lambda: None),
        ):
            pass
    store.clean()
    assert not store.folder.exists()
