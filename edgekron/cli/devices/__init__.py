"""``edgekron devices``: names for devices, and whether one is ready. Each subcommand is the module of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

SUBCOMMANDS = {
    "add": "give a device a name, in a file that can be committed",
    "list": "the devices that have a name",
    "check": "what a device is, what it lacks, and the commands that install it",
    "remove": "forget a name, and remove what was left on the device",
    "emulate": "build an emulated ARM board",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand; its module is imported when it is parsed."""
    commands = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name, about in SUBCOMMANDS.items():
        # The parser of the commands: it imports the module of this name when it is used.
        child: Any = commands.add_parser(name, help=about, description=about)
        child.command = f"devices.{name}"


def run(arguments: argparse.Namespace) -> int:  # pragma: no cover - every subcommand brings its own
    """Never called: a subcommand is required, and brings its own."""
    raise AssertionError(arguments)
