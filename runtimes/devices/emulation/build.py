"""Builds the emulated boards from packages: qemu, a minimal ARM system with Python, the runtimes, the counter."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

from . import wheels
from .boards import BOARDS, EmulatedBoard
from .installation import SOURCES, Installation, key, library_folders
from .packages import PackageSource, last_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekron.runtimes.agent.messages import Progress

#: Python, and the libraries that the runtimes' wheels expect of a system.
_ARM_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgcc-s1", "libgomp1")
_QEMU = "qemu-aarch64"
#: Debian's package of it; from version 10 on it is linked statically, and then has no plugins.
_QEMU_PACKAGE = "qemu-user"
_STEPS = 3
#: Says on the board what it is, sets a mark, and leaves the bytecode of the runtimes for later runs.
_TRIAL = """
import importlib.util, os, platform
assert (platform.machine(), os.cpu_count()) == ("aarch64", 4), (platform.machine(), os.cpu_count())
import numpy
for name in ("onnxruntime", "ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
    if importlib.util.find_spec(name.partition(".")[0]):
        importlib.import_module(name)
try:
    os.getpgid(0x7e000001)
except ProcessLookupError:
    pass
"""


def build(
    board: EmulatedBoard,
    cache: Path,
    *,
    sources: Path | None = None,
    rebuild: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Installation:
    """The installation in ``cache``; a missing or outdated one is made, and any one if ``rebuild`` is set.

    ``sources`` is a file of apt sources for the ARM packages; the machine's own are used otherwise. Raises
    ``RuntimeFailure`` when packages, the compiler or a working qemu cannot be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock", progress):
        if not rebuild:
            with contextlib.suppress(RuntimeFailure):
                return Installation.open(cache, board.name)
        with tempfile.TemporaryDirectory(prefix=".arm64-", dir=cache) as name:
            folder = Path(name) / "arm64"
            folder.mkdir()
            installation = _make(folder, Path(name), sources, progress)
            progress("trying it", 2, _STEPS)
            _try(installation, board, Path(name))
            installation.write()
            old = cache / "arm64"
            if old.exists():
                old.rename(Path(name) / "old")
            folder.rename(old)
            return replace(installation, folder=old)


def _make(folder: Path, scratch: Path, sources: Path | None, progress: Progress) -> Installation:
    compile_counter(folder / "counter.so")
    progress("ARM packages", 0, _STEPS)
    root = folder / "root"
    arm = PackageSource(scratch.parent / "apt-arm64", "arm64", sources)
    arm.update()
    arm.unpack(_ARM_PACKAGES, root)
    merge_usr(root)
    pythons = sorted(path.name for path in (root / "usr/bin").glob("python3.*") if path.name[8:].isdigit())
    if not pythons:
        raise RuntimeFailure("the ARM packages brought no Python; check the machine's apt sources.")
    python, libc = pythons[0].removeprefix("python"), wheels.libc_minor(root)
    progress("qemu and ARM wheels", 1, _STEPS)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(wheels.install, wheels.requirements(), folder / "site", python, libc)
        qemu = shutil.which(_QEMU) or _unpacked_qemu(folder, scratch)
        waiting.result()
    link_boards(folder)
    version = qemu_version([qemu if Path(qemu).is_absolute() else str(folder / qemu)], library_folders(folder / "host"))
    return Installation(folder, key(), qemu, version, python, libc, installed(folder / "site"))


def _unpacked_qemu(folder: Path, scratch: Path) -> str:
    own = PackageSource(scratch.parent / "apt-own")
    own.update()
    own.unpack([_QEMU_PACKAGE], folder / "host")
    qemu = Path("host/usr/bin", _QEMU)
    if not (folder / qemu).exists():
        raise RuntimeFailure(f"the package {_QEMU_PACKAGE} holds no {_QEMU}; install qemu's user emulation yourself.")
    # Documentation and the emulators of other processors: nine tenths of the package.
    for other in (folder / qemu).parent.iterdir():
        if other.name != _QEMU:
            other.unlink()
    shutil.rmtree(folder / "host/usr/share", ignore_errors=True)
    return str(qemu)


def compile_counter(target: Path) -> None:
    """Compiles the plugin with the system's C compiler, or the one that the variable CC names."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    words = [*compiler, "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", str(target), str(SOURCES[0])]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeFailure(
            f"{words[0]} cannot be started ({error.strerror}), and the instruction counter must be compiled; install a "
            "C compiler (apt-get install gcc libc6-dev), or name one in the variable CC."
        ) from None
    if done.returncode:
        raise RuntimeFailure(
            f"{words[0]} cannot compile the instruction counter ({last_error(done.stderr)}); install a complete C "
            "compiler (apt-get install gcc libc6-dev)."
        )


def merge_usr(root: Path) -> None:
    """Links /lib and the like into /usr where packages put everything there: the links are made by no package."""
    for name in ("bin", "sbin", "lib"):
        if (root / "usr" / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(Path("usr", name))


def link_boards(folder: Path) -> None:
    """Makes the root of every board: links to the common system, and the board's own files beside them."""
    for board in BOARDS.values():
        root = folder / "boards" / board.name
        root.mkdir(parents=True)
        for entry in (folder / "root").iterdir():
            if entry.name not in ("proc", "sys"):
                (root / entry.name).symlink_to(Path("../../root", entry.name))
        for name, text in board.files().items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def qemu_version(command: Sequence[str], libraries: Sequence[Path]) -> str:
    """The version that a qemu states, as "7.2.22"."""
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))} if libraries else None
    done = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+[\d.]*)", done.stdout)
    if done.returncode or not found:
        raise RuntimeFailure(f"{command[0]} does not start ({last_error(done.stderr)}); build it again with --rebuild.")
    return found.group(1)


def installed(site: Path) -> dict[str, str]:
    """Names and versions of the packages in a folder."""
    found = (re.fullmatch(r"(.+)-([^-]+)\.dist-info", path.name) for path in site.glob("*.dist-info"))
    return dict(sorted((match.group(1).replace("_", "-"), match.group(2)) for match in found if match))


def _try(installation: Installation, board: EmulatedBoard, scratch: Path) -> None:
    marks = scratch / "marks.json"
    done = subprocess.run(
        [*installation.command(board, count_to=marks), "-c", _TRIAL],
        env=installation.environment(scratch),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not marks.exists() or not marks.read_text().strip():
        reason = last_error(done.stderr) if done.returncode >= 0 else f"signal {-done.returncode}"
        raise RuntimeFailure(
            f"qemu {installation.qemu_version} does not run the board with the instruction counter ({reason}); it "
            "needs a qemu 4.2 to 8.2 that is built with plugins, as Debian 12's is."
        )


@contextlib.contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """Holds a lock file, so that two builds do not make the same folder; waits for the other one."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build", 0, 1)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
