"""``edgekron devices list``: the names of devices, and the files that hold them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edgekron.cli.shared.output import print_json, print_table, say

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing."""


def run(arguments: argparse.Namespace) -> int:
    """Prints one row a device; nothing is contacted."""
    from edgekron.runtimes.devices.file import all_targets

    targets = all_targets()
    if arguments.json:
        print_json({name: {**asdict(target), "file": str(path)} for name, (target, path) in targets.items()})
    elif not targets:
        say("no device has a name yet; add one: edgekron devices add NAME ssh:user@host")
    else:
        rows = [[name, target.on, target.python or "python3", path] for name, (target, path) in targets.items()]
        print_table("Devices", ["<name", "<device", "<python", "<file"], rows)
    return 0
