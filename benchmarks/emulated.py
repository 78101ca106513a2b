"""The emulated boards: seconds to build and to start them, and how well counts of instructions repeat.

    python -m benchmarks.emulated FILE.tflite FILE.onnx ... [--cold]

The record is ``emulated``: seconds of building from nothing (with --cold, in a temporary folder), of booting the
virtual machine and of the agent's first answer, and for each file and board the counts of five processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.common.harness import Experiment
from benchmarks.common.record import Record, made
from edgekron.runtimes.devices.emulation import BOARDS, Installation, build, cache_folder, find_board
from edgekron.runtimes.devices.emulation.boot import Machine
from edgekron.runtimes.devices.emulation.device import EmulatedDevice
from edgekron.runtimes.devices.emulation.machine import build_machine

PROCESSES = 5


def opened(board: str, cache: Path) -> EmulatedDevice:
    """The board as a device."""
    return EmulatedDevice(find_board(board), Installation.open(cache, board))


def seconds_from_nothing(file: str) -> dict[str, float]:
    """Builds everything in a folder of its own and counts one file."""
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        build(find_board("pi4"), Path(name))
        built = time.perf_counter()
        with closing(opened("pi4", Path(name))) as device:
            device.count([file])
        counted = time.perf_counter()
        build_machine("pi4", Path(name))
        return {"build": built - started, "count": counted - built, "machine": time.perf_counter() - counted}


def repeated(board: str, files: list[str]) -> dict[str, dict[str, object]]:
    """The counts of each file in several processes, and how far they are apart."""
    found: dict[str, dict[str, object]] = {}
    with closing(opened(board, cache_folder())) as device:
        for file in files:
            report = device.count([file] * PROCESSES)
            counts = [count.instructions for count in report.files]
            found[Path(file).name] = {
                "instructions": counts,
                "spread": (max(counts) - min(counts)) / min(counts),
                "relative_difference_of_outputs": max(count.agreement.relative for count in report.files),
            }
    return found


def options(parser: argparse.ArgumentParser) -> None:
    """Which files."""
    parser.add_argument("files", nargs="+")
    parser.add_argument("--cold", action="store_true", help="also build everything from nothing")


def measure(arguments: argparse.Namespace) -> Record:
    """How long everything takes, and the counts of each file on each board."""
    results = made("onnxruntime", "ai-edge-litert")
    if arguments.cold:
        results["seconds_from_nothing"] = seconds_from_nothing(arguments.files[0])
    with Machine(build_machine("pi4", cache_folder()), find_board("pi4")) as machine:
        results["seconds_to_boot"] = machine.boot_seconds
    with closing(opened("pi4", cache_folder())) as device, device.start("the first answer") as agent:
        results["seconds_to_the_first_answer"] = agent.start_seconds
    results["boards"] = {board: repeated(board, arguments.files) for board in BOARDS}
    print(json.dumps(results, indent=1))
    return results


EXPERIMENT = Experiment("emulated", __doc__, "emulated", measure, options)

if __name__ == "__main__":
    sys.exit(EXPERIMENT.main())
