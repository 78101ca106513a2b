"""``edgekron devices emulate``: builds an emulated ARM board on this machine, once."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgekron.cli.shared.output import print_json, print_table, say

if TYPE_CHECKING:
    import argparse

    from edgekron.runtimes.devices.emulation import EmulatedBoard, Installation
    from edgekron.runtimes.devices.emulation.machine import MachineFiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The board, and whether to build or start its virtual machine."""
    parser.add_argument("board", metavar="BOARD", help="pi3, pi4 or pi5")
    parser.add_argument(
        "--machine", action="store_true", help="also a virtual machine that is reached over SSH: emulated:BOARD:ssh"
    )
    parser.add_argument(
        "--boot", action="store_true", help="start that machine, say how to reach it, and stop it on Ctrl-C"
    )
    parser.add_argument(
        "--apt-sources", type=Path, metavar="FILE", help="apt sources with arm64 packages (default: this machine's own)"
    )
    parser.add_argument("--rebuild", action="store_true", help="download and build everything again")


def run(arguments: argparse.Namespace) -> int:
    """Builds all that is missing, and says how the board is used."""
    from edgekron.runtimes.devices.emulation import build, cache_folder, find_board
    from edgekron.runtimes.devices.emulation.machine import build_machine

    board, cache = find_board(arguments.board), cache_folder()
    sources, rebuild = arguments.apt_sources, arguments.rebuild
    installation = build(board, cache, sources=sources, rebuild=rebuild, progress=_step)
    machine = None
    if arguments.machine or arguments.boot:
        machine = build_machine(board.name, cache, sources=sources, rebuild=rebuild, progress=_step)
    if arguments.json:
        print_json(_facts(board, installation, machine))
    else:
        _print(board, installation, machine)
    if arguments.boot and machine:
        _boot(board, machine)
    return 0


def _step(what: str, _done: int, _total: int) -> None:
    sys.stderr.write(f"{what} ...\n")


def _facts(board: EmulatedBoard, installation: Installation, machine: MachineFiles | None) -> dict[str, object]:
    facts = {"device": f"emulated:{board.name}", "folder": str(installation.folder), **installation.facts(board)}
    if machine is None:
        return facts
    own = {"device": f"emulated:{board.name}:ssh", "folder": str(machine.folder), "kernel": machine.kernel}
    return {**facts, "machine": {**own, "emulator": f"qemu {machine.qemu_version}"}}


def _print(board: EmulatedBoard, installation: Installation, machine: MachineFiles | None) -> None:
    packages = ", ".join(
        f"{name} {version}"
        for name, version in installation.packages.items()
        if name in ("numpy", "onnxruntime", "ai-edge-litert", "tflite-runtime")
    )
    rows = [
        ["board", f"{board.title} ({board.cpu})"],
        ["emulator", f"qemu {installation.qemu_version}"],
        ["Python", f"{installation.python}, {packages}"],
        ["folder", str(installation.folder)],
        ["count with", f"edgekron bench FILE... --on emulated:{board.name}"],
    ]
    if machine:
        rows += [
            ["machine", f"Linux {machine.kernel}, {machine.folder}"],
            ["drive with", f"edgekron bench FILE... --on emulated:{board.name}:ssh"],
        ]
    print_table(f"emulated:{board.name} is ready", ["<", "<"], rows)


def _boot(board: EmulatedBoard, files: MachineFiles) -> None:
    """Runs the machine until the user presses Ctrl-C."""
    from edgekron.runtimes.devices.emulation.boot import Machine

    # A service manager's request to end is an interrupt too: the machine must not outlive this command.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Machine(files, board) as machine, contextlib.suppress(KeyboardInterrupt):
        say(f"It runs. Log in with: ssh -F {machine.config} {machine.host}")
        say(f"Name it with: edgekron devices add NAME ssh:{machine.host} --ssh-config {machine.config}")
        say("Ctrl-C stops it.")
        signal.pause()
