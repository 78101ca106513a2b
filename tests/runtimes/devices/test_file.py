from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.devices import Target, open_device
from edgekron.runtimes.devices.file import FILE, all_targets, find, read

GOOD = """
[devices.kitchen]
on = "ssh:pi@kitchen.local:2222"
python = "/home/pi/venv/bin/python"
keep = true
ssh_config = "ssh.conf"

[devices.here]
on = "local"
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_an_entry_is_read_with_its_paths_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(GOOD)
    assert read(path)["kitchen"] == Target(
        "ssh:pi@kitchen.local:2222",
        python="/home/pi/venv/bin/python",
        keep=True,
        ssh_config=str(tmp_path / "ssh.conf"),
    )
    with closing(open_device("here")) as device:
        assert device.name == "here"


def test_the_folders_file_wins_over_the_users(tmp_path: Path) -> None:
    own = tmp_path / "config" / "edgekron" / "devices.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[devices.here]\non = "adb:x"\n[devices.there]\non = "adb:y"\n')
    (tmp_path / FILE).write_text(GOOD)
    assert {name: target.on for name, (target, _) in all_targets().items()} == {
        "here": "local",
        "there": "adb:y",
        "kitchen": "ssh:pi@kitchen.local:2222",
    }


def test_a_device_said_in_full_needs_no_file() -> None:
    assert find("ssh:pi@host") == Target("ssh:pi@host")
    assert find("local") == Target("local")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[devices.x]\non = "local"\npyhton = "p"', "unknown key 'pyhton'; did you mean python"),
        ('[devices.x]\non = "local"\nkeep = "yes"', "keep is 'yes', not true or false"),
        ("[devices.x]\non = 3", "on is 3, not text"),
        ('[devices.x]\non = "moon"', "device x: 'moon' says no device"),
        ('[devices.x]\non = "emulated:pi9"', "device x: 'emulated:pi9' says no device"),
        ('[devices.x]\non = "local"\npython = "p"', "device x: python says nothing about local"),
        ('[devices.x]\non = "ssh:a"\nadb = "p"', "device x: adb says nothing about ssh:a"),
        ('[devices.x]\non = "ssh:"', "device x: 'ssh:' says no device"),
        ('[devices.x]\npython = "p"', 'needs on = "ssh:user@host"'),
        ('[devices."x y"]\non = "local"', "'x y' cannot name a device"),
        ('[devices.local]\non = "local"', "'local' cannot name a device"),
        ('[device.x]\non = "local"', "has 'device'"),
        ("devices = 1", "devices is no table"),
        ("[devices", "is no TOML file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / FILE
    path.write_text(text)
    with pytest.raises(RuntimeFailure, match=words):
        read(path)


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(GOOD)
    with pytest.raises(RuntimeFailure, match="no device 'kitchn'; did you mean kitchen"):
        find("kitchn")
    with pytest.raises(RuntimeFailure, match="no device 'moon'; add it"):
        find("moon")
