"""The virtual machine that is a board over SSH: a real kernel, a disk with Python and the runtimes, an SSH server.

    emulated/machine/
      manifest.json   written last
      host/           qemu, where the machine has none
      vmlinuz, initrd, disk.img
      ssh/            the key that opens the board, and the board's own public key as ``known_hosts``

The machine holds the same ARM system as ``emulated/arm64``, started as a computer instead of one program at a time: so
all that drives a board over SSH can be tried as a whole. ``boot.py`` starts the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

from .boards import find_board
from .build import build, locked, merge_usr, qemu_version
from .initrd import drivers, initrd
from .installation import Installation, library_folders
from .packages import PackageSource, last_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgekron.runtimes.agent.messages import Progress

#: The name under which the board's key is known, whatever port it gets.
HOST_ALIAS = "edgekron-board"
USER = "pi"

_KERNEL = "linux-image-cloud-arm64"
_QEMU, _QEMU_PACKAGE = "qemu-system-aarch64", "qemu-system-arm"
_STEPS = 3
#: Room on the disk beyond what is on it at first, in bytes.
_ROOM = 256 * 2**20
_USER_ID = 1000
#: Text files of the disk by path.
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{_USER_ID}:{_USER_ID}::/home/{USER}:/bin/sh\n",
    "etc/group": f"root:x:0:\n{USER}:x:{_USER_ID}:\n",
    "etc/shadow": f"root:*:19000::::::\n{USER}:*:19000::::::\n",
    "etc/shells": "/bin/sh\n",
    "etc/hostname": "edgekron\n",
    "etc/inittab": (
        "::sysinit:/sbin/board-setup\n"
        "::respawn:/usr/sbin/dropbear -F -E -s -j -k -r /etc/dropbear/key -p 22\n"
        "::ctrlaltdel:/bin/busybox poweroff -f\n"
    ),
    "sbin/board-setup": f"""\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts devpts /dev/pts
$b mount -t tmpfs shm /dev/shm
$b mount -t tmpfs tmp /tmp
$b chmod 1777 /tmp
$b hostname -F /etc/hostname
$b chown -R 0:0 /etc/dropbear /root
$b chown -R {_USER_ID}:{_USER_ID} /home/{USER}
$b ip link set lo up
$b ip addr add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
$b ip route add default via 10.0.2.2
""",
}
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "etc/dropbear", "var/run", "var/log")


@dataclass(frozen=True)
class MachineFiles:
    """A built folder ``machine``; ``key`` is that of the installation whose system is on the disk."""

    folder: Path
    key: str
    qemu: str
    qemu_version: str
    kernel: str

    @classmethod
    def open(cls, cache: Path, board: str) -> MachineFiles:
        """The machine's files in a cache; ``RuntimeFailure`` for files that are missing or out of date."""
        folder = cache / "machine"
        remedy = f"run `edgekron devices emulate {board} --machine`."
        installation = Installation.open(cache, board)
        try:
            stored = json.loads((folder / "manifest.json").read_text())
        except FileNotFoundError:
            raise RuntimeFailure(f"emulated:{board}:ssh has not been built on this machine; {remedy}") from None
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"{folder}/manifest.json cannot be read ({error}); {remedy}") from None
        if stored.get("key") != installation.key:
            raise RuntimeFailure(f"emulated:{board}:ssh holds other versions than emulated:{board}; {remedy}")
        return cls(folder=folder, **stored)

    def program(self) -> str:
        """The emulator's path."""
        return str(self.folder / self.qemu)

    def libraries(self) -> list[Path]:
        """Folders of the libraries that came with qemu."""
        return library_folders(self.folder / "host")


def build_machine(
    board: str,
    cache: Path,
    *,
    sources: Path | None = None,
    rebuild: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> MachineFiles:
    """The machine's files in ``cache``; missing or outdated ones are made, and all of them if ``rebuild`` is set.

    A missing emulated board, whose system goes on the disk, is built first; ``build`` explains the arguments.
    """
    installation = build(find_board(board), cache, sources=sources, progress=progress)
    with locked(cache / "lock", progress):
        if not rebuild:
            with contextlib.suppress(RuntimeFailure):
                return MachineFiles.open(cache, board)
        with tempfile.TemporaryDirectory(prefix=".machine-", dir=cache) as name:
            folder = Path(name) / "machine"
            folder.mkdir()
            files = _make(folder, Path(name), installation, sources, progress)
            target = cache / "machine"
            if target.exists():
                target.rename(Path(name) / "old")
            folder.rename(target)
            return replace(files, folder=target)


def _make(
    folder: Path, scratch: Path, installation: Installation, sources: Path | None, progress: Progress
) -> MachineFiles:
    mkfs = _program("mkfs.ext4", "e2fsprogs")
    keygen = _program("ssh-keygen", "openssh-client")
    progress("kernel and SSH server", 0, _STEPS)
    arm = PackageSource(scratch.parent / "apt-arm64", "arm64", sources)
    arm.update()
    disk, kernel = scratch / "disk", scratch / "kernel"
    arm.unpack(["dropbear-bin", "busybox-static"], disk)
    merge_usr(disk)
    # The name stands for the current version's package, which alone holds files, and needs nothing here.
    current = [name for name in arm.dependencies(_KERNEL) if name.startswith("linux-image-")]
    arm.unpack(current[:1] or [_KERNEL], kernel, dependencies=False)
    image = next((kernel / "boot").glob("vmlinuz-*"), None)
    if image is None:
        raise RuntimeFailure(f"the package {_KERNEL} holds no kernel; check the apt sources.")
    version = image.name.removeprefix("vmlinuz-")
    shutil.copy(image, folder / "vmlinuz")
    busybox = (disk / "bin/busybox").read_bytes()
    (folder / "initrd").write_bytes(initrd(busybox, drivers(kernel / "lib/modules" / version)))
    progress("qemu", 1, _STEPS)
    qemu = shutil.which(_QEMU) or _unpacked_qemu(folder, scratch)
    progress("keys and disk", 2, _STEPS)
    _overlay(installation.folder / "root", disk)
    packages = disk / f"usr/local/lib/python{installation.python}/dist-packages"
    packages.mkdir(parents=True)
    _overlay(installation.folder / "site", packages)
    _settle(disk)
    _keys(keygen, folder / "ssh", disk, installation, scratch)
    size = sum(path.lstat().st_size for path in disk.rglob("*") if path.is_file() and not path.is_symlink())
    _call([mkfs, "-q", "-F", "-d", str(disk), str(folder / "disk.img"), f"{(size + _ROOM) * 11 // 10 // 1024}k"])
    program = qemu if Path(qemu).is_absolute() else str(folder / qemu)
    number = qemu_version([program], library_folders(folder / "host"))
    stored = {"key": installation.key, "qemu": qemu, "qemu_version": number, "kernel": version}
    (folder / "manifest.json").write_text(json.dumps(stored, indent=1) + "\n")
    return MachineFiles(folder=folder, **stored)


def _unpacked_qemu(folder: Path, scratch: Path) -> str:
    own = PackageSource(scratch.parent / "apt-own")
    own.update()
    own.unpack([_QEMU_PACKAGE], folder / "host")
    shutil.rmtree(folder / "host/usr/share/doc", ignore_errors=True)
    (folder / "host/usr/bin/qemu-system-arm").unlink(missing_ok=True)
    return f"host/usr/bin/{_QEMU}"


def _settle(disk: Path) -> None:
    """Makes of unpacked packages what their scripts would: accounts, the shell, the set-up at the start."""
    for name in _FOLDERS:
        (disk / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (disk / name).unlink(missing_ok=True)  # it may be a link to the installation's own file
        (disk / name).write_text(text)
    (disk / "sbin/board-setup").chmod(0o755)
    for link in ("bin/sh", "sbin/init"):
        (disk / link).unlink(missing_ok=True)
        (disk / link).symlink_to("/bin/busybox")


def _keys(keygen: str, folder: Path, disk: Path, installation: Installation, scratch: Path) -> None:
    """A key for the user, which the board accepts, and one for the board, which the user's client knows."""
    folder.mkdir(mode=0o700)
    for path in (folder / "id", scratch / "host"):
        _call([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "edgekron", "-f", str(path)])
    kind, key, *_ = (scratch / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"{HOST_ALIAS} {kind} {key}\n")
    accepted = disk / f"home/{USER}/.ssh/authorized_keys"
    accepted.parent.mkdir(parents=True, mode=0o700)
    accepted.write_text((folder / "id.pub").read_text())
    accepted.chmod(0o600)
    # The board's server has a format of its own; its converter is an ARM program, and the disk a system to run it in.
    qemu = [str(installation.folder / installation.qemu), "-cpu", find_board("pi4").cpu, "-L", str(disk)]
    convert = [*qemu, str(disk / "usr/bin/dropbearconvert"), "openssh", "dropbear"]
    _call([*convert, str(scratch / "host"), str(disk / "etc/dropbear/key")], installation.environment(scratch))
    (disk / "etc/dropbear/key").chmod(0o600)


def _program(name: str, package: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if not found:
        raise RuntimeFailure(f"{name} is not on this machine and makes the board's files; apt-get install {package}.")
    return found


def _overlay(source: Path, target: Path) -> None:
    """Adds what ``target`` lacks of ``source``; files are linked, not copied."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if os.path.lexists(place):
            continue
        if path.is_symlink():
            place.symlink_to(path.readlink())
        elif path.is_dir():
            place.mkdir()
        else:
            place.hardlink_to(path)


def _call(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    variables = environment and dict(environment)
    done = subprocess.run(list(command), env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        name = Path(command[0]).name
        raise RuntimeFailure(f"{name} failed ({last_error(done.stderr)}); free disk space and run this again.")
