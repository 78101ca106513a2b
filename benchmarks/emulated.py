"""The emulated boards: how long they take to build and to start, how well counts repeat, what a percent looks like.

    python benchmarks/emulated.py FILE.tflite FILE.onnx ... [--cold]

Writes benchmarks/results/emulated.json: seconds of building from nothing (with --cold, in a temporary folder), of
booting the virtual machine and of the agent's first answer, and for each file and board the counts of five processes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path

from edgekron.files import write_file
from edgekron.runtimes.devices.emulation import BOARDS, Installation, build, cache_folder, find_board
from edgekron.runtimes.devices.emulation.boot import Machine
from edgekron.runtimes.devices.emulation.device import EmulatedDevice
from edgekron.runtimes.devices.emulation.machine import build_machine

RESULTS = Path(__file__).parent / "results" / "emulated.json"
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


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--cold", action="store_true", help="also build everything from nothing")
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    if arguments.cold:
        results["seconds_from_nothing"] = seconds_from_nothing(arguments.files[0])
    with Machine(build_machine("pi4", cache_folder()), find_board("pi4")) as machine:
        results["seconds_to_boot"] = machine.boot_seconds
    with closing(opened("pi4", cache_folder())) as device, device.start("the first answer") as agent:
        results["seconds_to_the_first_answer"] = agent.start_seconds
    results["boards"] = {board: repeated(board, arguments.files) for board in BOARDS}
    write_file(RESULTS, json.dumps(results, indent=1) + "\n", force=True)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
