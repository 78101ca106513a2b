"""``edgekron devices check``: the facts about a device, and the commands that install its missing packages."""

from __future__ import annotations

import shlex
from contextlib import closing
from typing import TYPE_CHECKING

from edgekron.cli.shared.output import print_json, print_table, say

if TYPE_CHECKING:
    import argparse

    from edgekron.runtimes.agent.messages import DescribeAnswer

_RUNTIMES = ("onnxruntime", "ai-edge-litert", "tflite-runtime", "benchmark_model")
_LEAST_FREE = 64 * 10**6
_GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The device."""
    parser.add_argument("name", metavar="DEVICE", help="a name (edgekron devices list), or a device said in full")


def run(arguments: argparse.Namespace) -> int:
    """Prints the device's facts and its missing packages; exit code 1 when it cannot measure anything yet."""
    from edgekron.runtimes.devices import open_device
    from edgekron.runtimes.devices.file import find

    target = find(arguments.name)
    with closing(open_device(arguments.name, target)) as device:
        answer = device.facts()
    wants, ready = findings(answer, target.python or "python3")
    if arguments.json:
        print_json({"device": arguments.name, "ready": ready, **answer, "wants": wants})
        return 0 if ready else 1
    print_table(f"Device {arguments.name}", ["<what", "<value"], _rows(answer))
    for sentence in wants:
        say(sentence)
    say("ready to measure" if ready else "not ready: it lacks numpy or a runtime")
    return 0 if ready else 1


def findings(answer: DescribeAnswer, python: str = "python3") -> tuple[list[str], bool]:
    """Sentences about all that is missing or may spoil a measurement, and whether anything can be measured.

    ``python`` is the interpreter of the device.
    """
    from edgekron.runtimes.agent.environment import disturbances

    pip = f"{shlex.quote(python)} -m pip install"
    runtimes, facts, state = answer["runtimes"], answer["facts"], answer["state"]
    wants = []
    if not runtimes.get("benchmark_model"):
        if not runtimes.get("numpy"):
            wants.append(f"numpy is missing: {pip} numpy")
        if not runtimes.get("onnxruntime"):
            wants.append(f"for .onnx files: {pip} onnxruntime")
        if not (runtimes.get("ai-edge-litert") or runtimes.get("tflite-runtime")):
            wants.append(f"for .tflite files: {pip} ai-edge-litert")
        numpy = str(runtimes.get("numpy") or "")
        if runtimes.get("tflite-runtime") and not runtimes.get("ai-edge-litert") and numpy.startswith("2."):
            wants.append(f"tflite-runtime does not work with numpy {numpy}: {pip} 'numpy<2'")
    wants += [f"{s}: {_GOVERNOR}" if "governor" in s else s for s in disturbances(facts, state, state)]
    if answer["disk"]["free"] < _LEAST_FREE:
        wants.append(f"{answer['disk']['free'] / 1e6:.0f} MB are free in {answer['disk']['folder']}; free some room")
    numpy_there = bool(runtimes.get("numpy") or runtimes.get("benchmark_model"))
    return wants, numpy_there and any(runtimes.get(name) for name in _RUNTIMES)


def _rows(answer: DescribeAnswer) -> list[list[object]]:
    facts, state, runtimes = answer["facts"], answer["state"], answer["runtimes"]
    temperature = state.get("temperature")
    frequency = state.get("frequency")
    values = {
        "board": facts.get("board"),
        "processor": facts.get("processor"),
        "machine": facts.get("machine"),
        "cores": facts.get("cores"),
        "memory": _size(facts.get("memory")),
        "swap": _size(facts.get("swap")),
        "page size": facts.get("page_size"),
        "system": f"{facts.get('system', '')} {facts.get('kernel', '')}".strip(),
        "python": answer["python"],
        **{name: version or "missing" for name, version in runtimes.items()},
        "governor": ", ".join(sorted(set(facts.get("governor", {}).values()))),
        "frequency": f"{max(frequency.values()) / 1e6:.0f} MHz" if frequency else None,
        "temperature": f"{max(temperature.values()):.1f} °C" if temperature else None,
        "throttled": hex(state["throttled"]) if "throttled" in state else None,
        "disk": f"{_size(answer['disk']['free'])} free in {answer['disk']['folder']}",
    }
    return [[name, value if value not in (None, "") else "not told"] for name, value in values.items()]


def _size(number: int | None) -> str | None:
    return None if number is None else f"{number / 1e6:,.0f} MB"
