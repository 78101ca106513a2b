"""Debian packages without installing them: downloaded by the machine's own apt, unpacked to a folder of ours.

apt gets a private state in that folder, so neither the lists nor the packages of the machine change, and the user needs
no right to install. Packages come from the machine's own sources, with its keys and proxies, or from a file of sources;
a machine whose mirror has no packages for ARM needs such a file. No script of a package is run.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.runtimes.agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Read after the machine's own settings, hence the clearing of what would touch the machine's own state.
_SETTINGS = """\
Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{status}";
Dir::State::extended_states "{state}/extended_states";
Dir::Cache "{state}";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Debug::NoLocking "true";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
"""
_ARCHITECTURE = """\
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
"""
_SOURCES = """\
Dir::Etc::SourceList "{sources}";
Dir::Etc::SourceParts "-";
"""
#: What an installed machine answers about its own packages.
_MACHINE_STATUS = Path("/var/lib/dpkg/status")


def settings(state: Path, architecture: str | None, sources: Path | None) -> str:
    """The text of apt's configuration for a private state; an architecture of None is the machine's own.

    Of the machine's own architecture only what is not installed is downloaded; of another one, everything down to the
    C library.
    """
    status = state / "status" if architecture else _MACHINE_STATUS
    text = _SETTINGS.format(state=state, status=status)
    if architecture:
        text += _ARCHITECTURE.format(architecture=architecture)
    if sources:
        text += _SOURCES.format(sources=sources.resolve())
    return text


class PackageSource:
    """apt for one architecture; ``update`` once, then ``unpack``."""

    def __init__(self, state: Path, architecture: str | None = None, sources: Path | None = None) -> None:
        """``state`` is a folder that keeps the lists; ``sources`` a file of apt sources (.list or .sources) to use."""
        if sources and not sources.is_file():
            raise RuntimeFailure(f"{sources} does not exist; give a file of apt sources that has arm64 packages.")
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if not shutil.which(program):
                raise RuntimeFailure(
                    f"{program} is not on this machine, and the emulated board is made from Debian's packages; "
                    "use a Debian or Ubuntu machine or container."
                )
        self._state = state
        self._of = architecture or "this machine"
        self._settings = state / "apt.conf"
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        self._settings.write_text(settings(state, architecture, sources))
        self._complaint = ""

    def update(self) -> None:
        """Reads the lists of the sources; one source that fails does not matter until a package is missing."""
        done = self._apt("apt-get", "-q", "update")
        self._complaint = "" if done.returncode == 0 else last_error(done.stderr)

    def dependencies(self, package: str) -> list[str]:
        """The names that a package depends on: for one that stands for the current version of another."""
        lines = self._apt("apt-cache", "depends", package).stdout.splitlines()
        return [line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("Depends:")]

    def unpack(self, packages: Sequence[str], folder: Path, *, dependencies: bool = True) -> None:
        """Downloads packages, with all they depend on unless told otherwise, and unpacks them there."""
        archives = self._state / "archives"
        shutil.rmtree(archives, ignore_errors=True)
        (archives / "partial").mkdir(parents=True)
        how = ["-o", f"Dir::Cache::archives={archives}", "--download-only", "install"] if dependencies else ["download"]
        done = self._apt("apt-get", "-q", "-y", *how, *packages, folder=archives)
        if done.returncode:
            reason = self._complaint or last_error(done.stderr)
            raise RuntimeFailure(
                f"apt cannot provide {', '.join(packages)} for {self._of} ({reason}); check the machine's apt sources, "
                "or name a file of sources with --apt-sources."
            )
        folder.mkdir(parents=True, exist_ok=True)
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(folder)], f"{archive.name} cannot be unpacked")
        shutil.rmtree(archives)

    def _apt(self, program: str, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [program, "-c", str(self._settings), *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeFailure(f"{failure} ({last_error(done.stderr)}); free disk space and run this again.")


def last_error(text: str) -> str:
    """The last line that says what went wrong, or the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR:", "Error", "error:"))]
    return (errors or lines or ["no reason given"])[-1][:300]
