"""The first file system of the virtual machine: loads the drivers of its disk and network, and goes on on the disk.

The file system is a "newc" cpio archive (the initramfs buffer format of the Linux kernel's documentation): for each
entry a header of 13 numbers in hexadecimal, the name, and the content, each padded to four bytes.
"""

from __future__ import annotations

import lzma
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What the machine needs beyond what is built into the kernel: disk, network, file system, random numbers.
DRIVERS = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "ext4")

_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do $b sleep 0.1; n=$((n + 1)); done
$b mount -t ext4 /dev/vda /new
exec $b switch_root /new /sbin/init
"""

_FOLDER, _FILE, _DEVICE = 0o040755, 0o100755, 0o020600
_CONSOLE = (5, 1)


def initrd(busybox: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive; ``modules`` are inserted in their order."""
    entries: dict[str, bytes | None] = dict.fromkeys(("bin", "dev", "new", "proc", "modules"))
    entries |= {"init": _INIT.encode(), "bin/busybox": busybox}
    entries |= {f"modules/{index:02}-{name}.ko": data for index, (name, data) in enumerate(modules)}
    return cpio(entries)


def cpio(entries: Mapping[str, bytes | None]) -> bytes:
    """An archive of folders (None) and executable files by path, and the console's device."""
    packed = bytearray()
    for number, (name, data) in enumerate(entries.items(), 1):
        packed += _entry(number, name, _FOLDER if data is None else _FILE, data or b"")
    packed += _entry(len(entries) + 1, "dev/console", _DEVICE, b"", _CONSOLE)
    packed += _entry(0, "TRAILER!!!", 0, b"")
    return bytes(packed)


def _entry(number: int, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    # inode, mode, user, group, links, time, size, major and minor of its disk, of itself, length of the name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def drivers(system: Path, wanted: Sequence[str] = DRIVERS) -> list[tuple[str, bytes]]:
    """(name, content) of kernel modules in ``system`` (a folder lib/modules/VERSION), each after those it depends on.

    A module built into the kernel needs no file. Raises ``RuntimeFailure`` for one that is neither.
    """
    files = {_plain(path.name.split(".ko", 1)[0]): path for path in (system / "kernel").rglob("*.ko*")}
    lines = (system / "modules.builtin").read_text().split()
    builtin = {_plain(Path(line).name.removesuffix(".ko")) for line in lines}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in builtin or name in found:
            return
        if name not in files:
            raise RuntimeFailure(f"the kernel {system.name} has no module {name}; it cannot be started by qemu.")
        data = files[name].read_bytes()
        if files[name].suffix == ".xz":
            data = lzma.decompress(data)
        for needed in depends(data):
            add(needed)
        found[name] = data

    for name in wanted:
        add(_plain(name))
    return list(found.items())


def depends(module: bytes) -> list[str]:
    """The modules that a kernel module says it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return [_plain(name) for name in match.group(1).decode().split(",") if name] if match else []


def _plain(name: str) -> str:
    """A module's name as the kernel knows it: files may have hyphens instead."""
    return name.replace("-", "_")
