"""``edgekron devices remove``: forgets a name, and removes EdgeKron's files from the device."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, cast

from edgekron.cli.shared.output import print_json, say
from edgekron.errors import UserError
from edgekron.files import write_file

if TYPE_CHECKING:
    import argparse

    from edgekron.runtimes.devices.benchmark_model import BenchmarkModelDevice
    from edgekron.runtimes.devices.board import Board

#: Kinds of devices on which something stays that is ours.
_KEEPERS = ("ssh", "adb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name."""
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--offline", action="store_true", help="do not contact the device: what it keeps stays there")


def run(arguments: argparse.Namespace) -> int:
    """Cleans the device first, so that a name is not forgotten while files are left behind it."""
    import tomlkit

    from edgekron.runtimes.devices import open_device
    from edgekron.runtimes.devices.file import all_targets

    targets = all_targets()
    if arguments.name not in targets:
        raise UserError(f"no device is named {arguments.name!r}; see: edgekron devices list.")
    target, path = targets[arguments.name]
    if not arguments.offline and target.on.partition(":")[0] in _KEEPERS:
        with closing(open_device(arguments.name)) as device:
            cast("Board | BenchmarkModelDevice", device).clean()
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    devices = document["devices"]
    del devices[arguments.name]
    write_file(path, tomlkit.dumps(document), force=True)
    if arguments.json:
        print_json({"file": str(path), "removed": arguments.name})
    else:
        say(f"{arguments.name} is removed from {path}")
    return 0
