"""An SSH server of the tests' own, on the loopback: an ordinary process of this user with keys of its own.

And a built emulated board without anything in it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekron.runtimes.devices import Target
from edgekron.runtimes.devices.emulation import Installation
from edgekron.runtimes.devices.emulation.installation import key

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Server:
    """Where it listens, and the OpenSSH configuration that reaches it; ``folder`` is the agent's on the "board"."""

    port: int
    folder: Path
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return f"ssh:{getpass.getuser()}@127.0.0.1:{self.port}"

    def target(self, **changes: object) -> Target:
        values = {"ssh_config": str(self.home / "config"), "python": sys.executable, "folder": str(self.folder)}
        return Target(self.name, **{**values, **changes})

    def write_config(self, name: str, *, key: str = "user", hosts: str = "known") -> str:
        path = self.home / name
        path.write_text(
            f"IdentityFile {self.home / key}\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {self.home / hosts}\nGlobalKnownHostsFile /dev/null\n"
        )
        return str(path)

    def connections(self) -> list[int]:
        """The processes of the server that hold a connection."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(entry.name))
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here; install openssh-server and openssh-client")
    home = tmp_path_factory.mktemp("sshd")
    # Running as root, sshd insists on this folder of the system's.
    separation = Path("/run/sshd")
    made = os.geteuid() == 0 and not separation.exists()
    if made:
        separation.mkdir(mode=0o755)
    for name in ("host", "user", "stranger"):
        make_key(home / name)
    port = free_port()
    (home / "authorized").write_text((home / "user.pub").read_text())
    (home / "known").write_text(f"[127.0.0.1]:{port} {(home / 'host.pub').read_text()}")
    (home / "changed").write_text(f"[127.0.0.1]:{port} {(home / 'stranger.pub').read_text()}")
    (home / "nobody").write_text("")
    (home / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {home / 'authorized'}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(home / "sshd_config")], stderr=subprocess.DEVNULL)
    server = Server(port, home / "board", home, process)
    server.write_config("config")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        if process.poll() is not None:
            pytest.skip("sshd does not start as this user")
        time.sleep(0.05)
    yield server
    process.terminate()
    process.wait()
    if made:
        with contextlib.suppress(OSError):
            separation.rmdir()


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], bool]:
    """wait_until(condition): whether it comes true within twenty seconds."""

    def wait(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.05)
        return False

    return wait


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """An emulated board as a build leaves it, without any program in it and without its machine."""
    folder = tmp_path / "a,b" / "arm64"
    folder.mkdir(parents=True)
    made = Installation(folder, key(), "host/usr/bin/qemu-aarch64", "7.2.22", "3.11", 36, {"numpy": "2.4.6"})
    made.write()
    return made
