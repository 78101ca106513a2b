"""Python packages for the board, by the running Python's own pip: its configuration says where they come from."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

from .packages import last_error

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Runtimes by preference; the later name of a pair replaces the earlier.
_RUNTIMES = (("onnxruntime",), ("ai-edge-litert", "tflite-runtime"))
#: The oldest C library that wheels for 64-bit ARM name, 2.17, which is also "manylinux2014".
_OLDEST = 17


def requirements() -> list[str]:
    """The board's packages: numpy and the runtimes, in the versions of this machine so that outputs can be compared.

    A runtime that this machine lacks is left out; if all are missing, the board gets the newest of each.
    """
    installed = [name for names in _RUNTIMES for name in names if _version(name)]
    runtimes = installed or [names[0] for names in _RUNTIMES]
    return [f"{name}=={_version(name)}" if _version(name) else name for name in ("numpy", *runtimes)]


def platforms(libc: int) -> list[str]:
    """Names that pip gives to the platforms whose wheels run with the C library 2.``libc`` on 64-bit ARM, newest first.

    pip takes a wheel only for a platform that is named exactly, so every version is named.
    """
    names = [f"manylinux_2_{minor}_aarch64" for minor in range(libc, _OLDEST - 1, -1)]
    return [*names, "manylinux2014_aarch64"]


def libc_minor(root: Path) -> int:
    """The N of the C library 2.N in an unpacked system."""
    for library in root.glob("**/aarch64-linux-gnu/libc.so.6"):
        found = re.search(rb"GNU C Library .*?version 2\.(\d+)", library.read_bytes())
        if found:
            return int(found.group(1))
    raise RuntimeFailure(f"{root} holds no C library; run this again with --rebuild.")


def install(wanted: Sequence[str], folder: Path, python: str, libc: int) -> None:
    """Puts packages and all they need, for the board's Python ("3.11"), into a folder; nothing is compiled."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-compile", "--no-warn-conflicts", "--root-user-action=ignore", "--target", str(folder)]
    command += ["--implementation", "cp", "--python-version", python, "--only-binary", ":all:"]
    command += [word for name in platforms(libc) for word in ("--platform", name)]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeFailure(
            f"pip cannot provide {', '.join(wanted)} for Python {python} on 64-bit ARM ({last_error(done.stderr)}); "
            "check pip's index, or install other versions on this machine."
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
