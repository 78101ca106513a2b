"""Device files: names for devices, in TOML that can be committed beside the models.

    [devices.kitchen]
    on = "ssh:pi@192.168.0.7"                # or local, adb:SERIAL, emulated:pi4
    python = "/home/pi/venv/bin/python"      # the interpreter that runs there (python3)
    folder = "/tmp/edgekron"                 # where files are kept there (~/.cache/edgekron)
    keep = true                              # leave models there for the next time
    ssh_config = "ssh.conf"                  # instead of the user's own; beside this file
    adb = "/opt/platform-tools/adb"
    benchmark_model = "bin/benchmark_model"  # for a phone without Python; beside this file

``edgekron-devices.toml`` of the working folder is looked at first, then the user's own in the configuration folder.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path

from edgekron.runtimes.agent.errors import RuntimeFailure

from .device import Target
from .emulation.boards import BOARDS

FILE = "edgekron-devices.toml"

#: A name is a word of the command line and a key of TOML, and no device of another kind.
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FIELDS = {field.name: bool if field.type == "bool" else str for field in fields(Target)}
#: What each kind of device can be told.
_MEANT_FOR = {
    "local": (),
    "emulated": (),
    "ssh": ("python", "folder", "keep", "ssh_config"),
    "adb": ("python", "folder", "keep", "adb", "benchmark_model"),
}
#: Paths of this machine: relative ones are beside the file.
HERE = ("ssh_config", "benchmark_model")


def user_file() -> Path:
    """The user's own device file."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekron" / "devices.toml"


def read(path: Path) -> dict[str, Target]:
    """The devices of a file, which need not exist; ``RuntimeFailure`` names the fault of a bad file."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RuntimeFailure(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except ValueError as error:  # no TOML, or no text
        raise RuntimeFailure(f"{path} is no TOML file ({error}); mend it.") from None
    if set(data) - {"devices"}:
        raise RuntimeFailure(f"{path} has {min(set(data) - {'devices'})!r}; every entry is [devices.NAME].")
    entries = data.get("devices", {})
    if not isinstance(entries, dict):
        raise RuntimeFailure(f"{path}: devices is no table; every entry is [devices.NAME].")
    return {name: target(path, name, entry) for name, entry in entries.items()}


def all_targets() -> dict[str, tuple[Target, Path]]:
    """Every named device with the file that names it; the working folder's file wins."""
    found: dict[str, tuple[Target, Path]] = {}
    for path in (user_file(), Path(FILE)):
        found |= {name: (target, path) for name, target in read(path).items()}
    return found


def find(name: str) -> Target:
    """The target of a word on the command line: an entry of a device file, or a device said in full."""
    if said_in_full(name):
        return Target(name)
    targets = all_targets()
    if name in targets:
        return targets[name][0]
    near = difflib.get_close_matches(name, targets, 1)
    hint = f"did you mean {near[0]}?" if near else "add it: edgekron devices add NAME ssh:user@host"
    raise RuntimeFailure(
        f"there is no device {name!r}; {hint} (or name one in full: local, ssh:user@host, adb:serial, emulated:pi4)."
    )


def said_in_full(word: str) -> bool:
    """Whether a word says where a device is, and is not the name of an entry."""
    return ":" in word or word == "local"


def check_place(word: str, where: str) -> None:
    """Raises ``RuntimeFailure``, beginning with ``where``, for a word that names no place of a device."""
    kind, _, place = word.partition(":")
    known = place.partition(":")[0] in BOARDS if kind == "emulated" else kind in ("ssh", "adb") and place
    if word != "local" and not known:
        raise RuntimeFailure(
            f"{where}: {word!r} says no device; write local, ssh:user@host, adb:serial or emulated:pi4."
        )


def check_name(name: str) -> None:
    """Raises ``RuntimeFailure`` for a word that cannot name a device."""
    if not _NAME.fullmatch(name) or name == "local":
        raise RuntimeFailure(f"{name!r} cannot name a device; use letters, digits, - and _, and not 'local'.")


def target(path: Path, name: str, entry: object) -> Target:
    """The target of an entry in a device file; ``RuntimeFailure`` names the fault of a bad entry."""
    check_name(name)
    if not isinstance(entry, dict) or "on" not in entry:
        raise RuntimeFailure(f'{path}: device {name} needs on = "ssh:user@host" (or local, adb:serial, emulated:pi4).')
    for key, value in entry.items():
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FIELDS)}."
            raise RuntimeFailure(f"{path}: device {name} has an unknown key {key!r}; {hint}")
        if not isinstance(value, _FIELDS[key]):
            kind = "true or false" if _FIELDS[key] is bool else "text"
            raise RuntimeFailure(f"{path}: device {name}: {key} is {value!r}, not {kind}.")
    check_place(entry["on"], f"{path}: device {name}")
    kind = entry["on"].partition(":")[0]
    for key in entry:
        if key != "on" and key not in _MEANT_FOR[kind]:
            raise RuntimeFailure(f"{path}: device {name}: {key} says nothing about {entry['on']}; leave it out.")
    here = {key: str(path.parent / entry[key]) for key in HERE if key in entry}
    return Target(**{**entry, **here})
