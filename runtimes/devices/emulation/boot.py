"""Starts the virtual machine as a board on this machine's loopback, and stops it.

With ``-icount shift=0`` the machine's clock advances by one nanosecond with each instruction. So a program on the
machine measures the same "time" on every host and in every repetition: a clock to try measuring with, and no time at
all. The kernel's command line says so, and the agent reads that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgekron.runtimes.agent.errors import RuntimeFailure

from .machine import HOST_ALIAS, USER, MachineFiles
from .packages import last_error

if TYPE_CHECKING:
    from types import TracebackType

    from .boards import EmulatedBoard

#: Megabytes; the smallest of the boards has as much.
MEMORY = 1024
_LOOPBACK = "127.0.0.1"
#: Seconds until the SSH server must have answered; it takes four on an idle machine.
_PATIENCE = 120.0
_QUOTED = str.maketrans({"\\": "\\\\", '"': '\\"'})


def command(files: MachineFiles, board: EmulatedBoard, port: int, console: Path) -> list[str]:
    """The command line of qemu: the board's processor, its SSH port at ``port`` of the loopback, no other network.

    Nothing that the machine writes to its disk is kept.
    """
    folder = files.folder
    disk = str(folder / "disk.img").replace(",", ",,")
    data = folder / "host/usr/share/qemu"
    return [
        files.program(),
        *(("-L", str(data)) if data.is_dir() else ()),
        *("-M", "virt", "-cpu", board.cpu, "-m", str(MEMORY), "-smp", "1"),
        *("-icount", "shift=0"),
        *("-nodefaults", "-display", "none", "-monitor", "none"),
        *("-serial", f"file:{str(console).replace(',', ',,')}"),
        *("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd")),
        *("-append", "console=ttyAMA0 quiet panic=-1 edgekron.clock=instructions"),
        *("-drive", f"if=none,id=disk,format=raw,snapshot=on,file={disk}", "-device", "virtio-blk-device,drive=disk"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:{_LOOPBACK}:{port}-:22"),
        *("-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"),
        "-no-reboot",
    ]


def ssh_config(folder: Path, port: int, host: str) -> str:
    """An OpenSSH configuration that knows the running board as ``host``, and nothing else."""
    own = {"IdentityFile": folder / "ssh/id", "UserKnownHostsFile": folder / "ssh/known_hosts"}
    quoted = [f'    {name} "{str(path).translate(_QUOTED)}"\n' for name, path in own.items()]
    return (
        f"Host {host}\n    HostName {_LOOPBACK}\n    Port {port}\n    User {USER}\n    HostKeyAlias {HOST_ALIAS}\n"
        "    IdentitiesOnly yes\n    GlobalKnownHostsFile none\n" + "".join(quoted)
    )


class Machine:
    """A running virtual machine; stopped by ``close``, at the end of a ``with``, and when this process ends."""

    def __init__(self, files: MachineFiles, board: EmulatedBoard) -> None:
        """Starts it and waits for its SSH server; ``RuntimeFailure`` when that does not come."""
        #: The name that the configuration gives it.
        self.host = f"edgekron-{board.name}"
        self._folder = tempfile.TemporaryDirectory(prefix="edgekron-machine-")
        folder = Path(self._folder.name)
        #: An OpenSSH configuration to reach it: ``ssh -F CONFIG HOST``.
        self.config = folder / "config"
        self._console = folder / "console"
        self._port = _free_port()
        self.config.write_text(ssh_config(files.folder, self._port, self.host))
        environment = dict(os.environ)
        if libraries := files.libraries():
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
        words = command(files, board, self._port, self._console)
        if setpriv := shutil.which("setpriv"):
            words = [setpriv, "--pdeathsig", "KILL", *words]
        self._errors = (folder / "errors").open("w+b")
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors, env=environment
        )
        started = time.monotonic()
        try:
            self._wait(started + _PATIENCE)
        except BaseException:
            self.close()
            raise
        #: Seconds from its start to its SSH server's first word.
        self.boot_seconds = time.monotonic() - started

    def close(self) -> None:
        """Stops it; nothing of it is left."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, deadline: float) -> None:
        while not self._answers(min(5.0, max(0.1, deadline - time.monotonic()))):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._errors.seek(0)
                said = self._errors.read().decode(errors="replace")
                shown = self._console.read_text(errors="replace") if self._console.exists() else ""
                raise RuntimeFailure(
                    f"the virtual machine {self.host} did not start ({last_error(said or shown)}); build it again with "
                    "--rebuild."
                )
            time.sleep(0.1)

    def _answers(self, seconds: float) -> bool:
        """Whether the SSH server greets: qemu accepts a connection long before there is one."""
        with contextlib.suppress(OSError), socket.create_connection((_LOOPBACK, self._port), timeout=seconds) as line:
            return line.recv(4) == b"SSH-"
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
