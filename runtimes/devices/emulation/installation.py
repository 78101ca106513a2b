"""The folder of the emulated boards, and its content.

emulated/           below the user's cache folder
  arm64/            everything that counting needs
    manifest.json     versions; written last, so its presence means that the rest is whole
    host/             qemu, where the machine has none
    root/             a minimal ARM system with Python
    site/             numpy and the runtimes, for ARM
    boards/pi4/       root/ again by links, and the files in which a board describes itself
    counter.so        the plugin that counts
  machine/          the virtual machine (``machine.py``)
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

from .boards import EmulatedBoard
from .wheels import requirements

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import MachineFacts

#: Raised when an installation made by an older version no longer serves.
_FORMAT = 1
_HERE = Path(__file__).parent
#: The counter's sources; a change of any of them needs a new plugin.
SOURCES = tuple(_HERE / name for name in ("count.c", "classes.h", "plugin_api.h"))


def cache_folder() -> Path:
    """The folder of all emulated boards: ``EDGEKRON_CACHE``, else below XDG_CACHE_HOME, else below ~/.cache."""
    own = os.environ.get("EDGEKRON_CACHE")
    if own:
        return Path(own) / "emulated"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekron" / "emulated"


def key() -> str:
    """What an installation depends on: the counter's sources, and the versions of this machine's runtimes."""
    digest = hashlib.sha256(f"{_FORMAT} {' '.join(requirements())} ".encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Installation:
    """A built folder ``arm64``, which can be moved: its own paths are relative.

    ``qemu`` is the program (relative, or an absolute path of the machine's own), ``python`` the version of the ARM
    Python ("3.11"), ``packages`` the ARM versions by name.
    """

    folder: Path
    key: str
    qemu: str
    qemu_version: str
    python: str
    libc: int
    packages: dict[str, str]

    @classmethod
    def open(cls, cache: Path, board: str) -> Installation:
        """The installation in a cache; ``RuntimeFailure`` for a cache without one, or with one of other versions."""
        folder = cache / "arm64"
        remedy = f"run `edgekron devices emulate {board}`."
        try:
            stored = json.loads((folder / "manifest.json").read_text())
        except FileNotFoundError:
            raise RuntimeFailure(f"emulated:{board} has not been built on this machine; {remedy}") from None
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"{folder}/manifest.json cannot be read ({error}); {remedy}") from None
        if stored.get("key") != key():
            raise RuntimeFailure(
                f"emulated:{board} was built for other versions of the runtimes or of the counter than this machine "
                f"has now; {remedy}"
            )
        return cls(folder=folder, **stored)

    def write(self) -> None:
        """Writes the manifest, which makes the folder an installation."""
        stored = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / "manifest.json").write_text(json.dumps(stored, indent=1) + "\n")

    def root(self, board: EmulatedBoard) -> Path:
        """The file system that a program on the board sees."""
        return self.folder / "boards" / board.name

    def facts(self, board: EmulatedBoard) -> MachineFacts:
        """What a report says about the board."""
        return {
            "board": board.title,
            "processor": board.cpu,
            "emulator": f"qemu {self.qemu_version}",
            "python": self.python,
            "packages": dict(self.packages),
        }

    def command(self, board: EmulatedBoard, *, count_to: Path | None = None) -> list[str]:
        """The start of a command line that runs the ARM Python as on this board; the script and its words follow.

        ``count_to`` is the file to which the counter writes at each mark.
        """
        root = self.root(board)
        words = [str(self.folder / self.qemu), "-cpu", board.cpu, "-L", str(root)]
        if count_to:
            # A comma would begin the plugin's next argument; qemu takes a doubled one for one.
            words += ["-plugin", f"{_escaped(self.folder / 'counter.so')},out={_escaped(count_to)}"]
        return [*words, str(root / f"usr/bin/python{self.python}")]

    def environment(self, home: Path) -> dict[str, str]:
        """All environment variables of such a process: nothing of this machine's leaks into the board.

        ``home`` is where a runtime may leave files of its own.
        """
        variables = {
            "HOME": str(home),
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(self.folder / "site"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        libraries = self.libraries()
        if not libraries:
            return variables
        # qemu's own libraries, which the board must not see.
        return {
            **variables,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "QEMU_UNSET_ENV": "LD_LIBRARY_PATH",
        }

    def libraries(self) -> list[Path]:
        """Folders of the libraries that came with qemu."""
        return library_folders(self.folder / "host")


def library_folders(host: Path) -> list[Path]:
    """The folders of shared libraries in unpacked packages of this machine's architecture."""
    return sorted(folder for pattern in ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*") for folder in host.glob(pattern))


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
