"""``edgekron devices add``: writes an entry of a device file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.cli.shared.output import print_json, say
from edgekron.errors import UserError
from edgekron.files import write_file

if TYPE_CHECKING:
    import argparse

_TEXTS = {
    "python": "the interpreter that runs there (python3)",
    "folder": "where files are kept there (~/.cache/edgekron)",
    "ssh_config": "an OpenSSH configuration instead of the user's own",
    "adb": "the adb program of this machine (adb)",
    "benchmark_model": "the official program for the device, where no Python is on it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name, the device, and the fields of its entry."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("on", metavar="DEVICE", help="local, ssh:user@host[:port], adb:serial or emulated:pi4")
    for name, about in _TEXTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="WHAT", help=about)
    parser.add_argument("--keep", action="store_true", help="leave models on the device for the next time")
    parser.add_argument("--user", action="store_true", help="write the user's own file, not that of this folder")
    parser.add_argument("--force", action="store_true", help="replace an entry of that name")


def run(arguments: argparse.Namespace) -> int:
    """Writes the entry; nothing is contacted."""
    import tomlkit

    from edgekron.runtimes.devices import file

    file.check_name(arguments.name)
    path = file.user_file() if arguments.user else Path(file.FILE)
    if arguments.name in file.read(path) and not arguments.force:
        raise UserError(f"{path} has a device {arguments.name}; choose another name, or give --force to replace it.")
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    entry = tomlkit.table()
    entry["on"] = arguments.on
    for name in _TEXTS:
        if (value := getattr(arguments, name)) is not None:
            # Relative paths are meant from here; in this folder's file they stay what they are.
            entry[name] = str(Path(value).absolute()) if arguments.user and name in file.HERE else value
    if arguments.keep:
        entry["keep"] = True
    file.target(path, arguments.name, entry.unwrap())
    document.setdefault("devices", tomlkit.table(is_super_table=True))[arguments.name] = entry
    write_file(path, tomlkit.dumps(document), force=True)
    if arguments.json:
        print_json({"file": str(path), "name": arguments.name, "on": arguments.on})
    else:
        say(f"{arguments.name} is {arguments.on}, in {path}; is it ready? edgekron devices check {arguments.name}")
    return 0
