"""The virtual machine's files and command lines, without starting it."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.devices.emulation import find_board
from edgekron.runtimes.devices.emulation.boot import command, ssh_config
from edgekron.runtimes.devices.emulation.initrd import cpio, depends, drivers
from edgekron.runtimes.devices.emulation.machine import HOST_ALIAS, MachineFiles


def test_the_first_file_system_is_a_cpio_archive():
    data = cpio({"bin": None, "bin/x": b"12345", "init": b"#!"})
    found, place = {}, 0
    while place < len(data):
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * i : place + 14 + 8 * i], 16) for i in range(13)]
        name = data[place + 110 : place + 110 + fields[11] - 1].decode()
        start = (place + 110 + fields[11] + 3) // 4 * 4
        found[name] = (fields[1], data[start : start + fields[6]], fields[9:11])
        place = (start + fields[6] + 3) // 4 * 4
    assert found["bin"] == (0o040755, b"", [0, 0])
    assert found["bin/x"] == (0o100755, b"12345", [0, 0])
    assert found["dev/console"] == (0o020600, b"", [5, 1])
    assert list(found)[-1] == "TRAILER!!!"


@pytest.fixture
def system(tmp_path):
    """Kernel modules: disk needs ring and bus, ring needs bus; fs is built in."""

    def module(needs: str) -> bytes:
        return b"\x7fELF\0depends=" + needs.encode() + b"\0name=x\0"

    folder = tmp_path / "6.1"
    (folder / "kernel/drivers").mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/fs/my-fs.ko\n")
    (folder / "kernel/drivers/disk.ko").write_bytes(module("ring-x,bus"))
    (folder / "kernel/drivers/ring-x.ko.xz").write_bytes(lzma.compress(module("bus")))
    (folder / "kernel/bus.ko").write_bytes(module(""))
    return folder


def test_drivers_come_after_what_they_need(system):
    found = drivers(system, ["disk", "my_fs", "bus"])
    assert [name for name, _ in found] == ["bus", "ring_x", "disk"]
    assert depends(dict(found)["ring_x"]) == ["bus"]
    with pytest.raises(RuntimeFailure, match=r"the kernel 6\.1 has no module net"):
        drivers(system, ["net"])


MACHINE = MachineFiles(Path('/c/"q",z/machine'), "key", "host/usr/bin/qemu-system-aarch64", "7.2", "6.1")


def test_the_machine_is_reached_from_this_machine_alone():
    words = command(MACHINE, find_board("pi5"), 40123, Path("/tmp/console"))
    text = " ".join(words)
    assert "-cpu cortex-a76" in text
    assert "-icount shift=0" in text
    assert "hostfwd=tcp:127.0.0.1:40123-:22" in text
    assert "restrict=on" in text  # the machine reaches nothing
    assert "edgekron.clock=instructions" in text
    assert 'snapshot=on,file=/c/"q",,z/machine/disk.img' in text


def test_openssh_reads_the_configuration(tmp_path):
    if not shutil.which("ssh"):
        pytest.skip("ssh, the OpenSSH client, is not on this machine")
    (tmp_path / "config").write_text(ssh_config(Path("/c/a b/machine"), 40123, "edgekron-pi4"))
    words = ["ssh", "-G", "-F", tmp_path / "config", "edgekron-pi4"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    read = dict(line.partition(" ")[::2] for line in said.splitlines())
    assert (read["hostname"], read["port"], read["user"]) == ("127.0.0.1", "40123", "pi")
    assert read["hostkeyalias"] == HOST_ALIAS
    assert read["identityfile"] == "/c/a b/machine/ssh/id"
    assert read["userknownhostsfile"] == "/c/a b/machine/ssh/known_hosts"


def test_a_machine_that_was_not_built_is_refused(installation):
    with pytest.raises(RuntimeFailure, match=r"emulated:pi4:ssh has not been built.*emulate pi4 --machine`"):
        MachineFiles.open(installation.folder.parent, "pi4")
