"""``edgekron devices`` and the devices of ``edgekron bench``, called as the program calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekron.cli.devices.check import findings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_name_is_added_listed_and_removed_and_comments_stay(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "edgekron-devices.toml"
    path.write_text('# Our boards.\n[devices.old]\non = "adb:x"  # in the drawer\n')
    code, out, _ = run("devices", "add", "kitchen", "ssh:pi@kitchen", "--python", 'v"1/python', "--keep")
    assert code == 0
    assert "edgekron devices check kitchen" in out
    code, out, _ = run("devices", "list", "--json")
    listed = json.loads(out)
    assert listed["kitchen"]["python"] == 'v"1/python'
    assert listed["kitchen"]["keep"] is True
    assert listed["old"]["on"] == "adb:x"
    assert "ssh:pi@kitchen" in run("devices", "list")[1]
    assert run("devices", "remove", "kitchen", "--offline")[0] == 0
    assert path.read_text().rstrip() == '# Our boards.\n[devices.old]\non = "adb:x"  # in the drawer'


def test_the_users_own_file_is_written_on_demand(run: Run, tmp_path: Path) -> None:
    assert run("devices", "add", "here", "local", "--user")[0] == 0
    assert (tmp_path / "config" / "edgekron" / "devices.toml").exists()
    assert not (tmp_path / "edgekron-devices.toml").exists()


def test_check_tells_what_a_device_is(run: Run) -> None:
    run("devices", "add", "here", "local")
    code, out, _ = run("devices", "check", "here", "--json")
    answer = json.loads(out)
    assert (code, answer["ready"], answer["device"]) == (0, True, "here")
    assert answer["runtimes"]["numpy"]
    code, out, _ = run("devices", "check", "here")
    assert code == 0
    assert "ready to measure" in out
    assert "onnxruntime" in out


def test_removing_cleans_the_device_first(run: Run) -> None:
    run("devices", "add", "here", "local")
    code, _, said = run("devices", "remove", "here")
    assert (code, said) == (0, "")
    assert json.loads(run("devices", "list", "--json")[1]) == {}


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["devices", "add", "a b", "local"], "cannot name a device"),
        (["devices", "check", "moon"], "there is no device 'moon'"),
        (["devices", "check", "ssh:-oProxyCommand=x"], "is no place for SSH"),
        (["devices", "remove", "moon"], "edgekron devices list"),
        (["devices", "add", "here", "local"], "--force"),
        (["devices", "add", "there", "local", "--keep"], "keep says nothing about local"),
        (["devices", "add", "there", "moon"], "device there: 'moon' says no device"),
    ],
)
def test_bad_input_is_one_sentence_with_a_remedy(run: Run, words: list[str], remedy: str) -> None:
    run("devices", "add", "here", "local")
    code, _, said = run(*words)
    assert code == 2
    assert said.count("\n") == 1
    assert remedy in said


def answer(**runtimes: str | None) -> dict[str, object]:
    facts = {"cores": 4, "governor": {"cpu0": "ondemand"}}
    return {"facts": facts, "state": {"throttled": 5}, "runtimes": runtimes, "disk": {"folder": "/f", "free": 10**6}}


def test_what_is_missing_comes_with_the_command_that_installs_it() -> None:
    wants, ready = findings(answer(numpy=None, onnxruntime=None))
    assert not ready
    text = "\n".join(wants)
    for words in ("pip install numpy", "pip install onnxruntime", "pip install ai-edge-litert", "scaling_governor"):
        assert words in text
    assert "throttled or under-voltage" in text
    assert "1 MB are free in /f" in text
    assert "for .onnx files: '/my venv/python' -m pip install onnxruntime" in findings(answer(), "/my venv/python")[0]
    wants, ready = findings(answer(numpy="2.1.0", **{"tflite-runtime": "2.14.0"}))
    assert ready
    assert "numpy<2" in "\n".join(wants)
