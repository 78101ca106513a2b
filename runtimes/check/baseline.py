"""Baselines: the cost of models when they were last accepted, by the machine that measured them.

One file holds any number of machines, so a workstation and a board can share one committed file:

    {"format": 1, "machines": {"3f2a…": {"identity": {…}, "devices": {"local": {"sixconv": {…}}}}}}

An entry keeps one number for each process that ran the model, in seconds or instructions: enough to compare with an
interval later. Only a measurement on the same machine, device and number of threads is compared with an entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from edgekron.runtimes.agent.errors import RuntimeFailure

from .fingerprint import Identity, differences, fingerprint

FORMAT = 1


@dataclass(frozen=True)
class BaselineEntry:
    """One model on one machine: ``latency`` in seconds and ``instructions``, a number for each process."""

    date: str
    threads: int
    sha256: str
    runtime: str
    latency: tuple[float, ...] = ()
    instructions: tuple[float, ...] = ()


@dataclass(frozen=True)
class BaselineMachine:
    """A machine's identity and its entries, by device and by model."""

    identity: Identity
    devices: Mapping[str, Mapping[str, BaselineEntry]]


@dataclass(frozen=True)
class Baseline:
    """A baseline file; ``machines`` are by fingerprint."""

    path: Path
    machines: Mapping[str, BaselineMachine]

    def find(self, machine: Identity, device: str, model: str, threads: int) -> tuple[BaselineEntry | None, str]:
        """The entry for a model on this machine, or None and why there is none."""
        again = "run with --write-baseline on this machine"
        here = self.machines.get(fingerprint(machine))
        if here is None:
            others = [m.identity for m in self.machines.values() if model in m.devices.get(device, {})]
            why = f" ({differences(machine, others[0])})" if others else ""
            return None, f"the baseline is from another machine{why}; {again}"
        entry = here.devices.get(device, {}).get(model)
        if entry is None:
            return None, f"the baseline has no {model} on {device}; {again}"
        if entry.threads != threads:
            return None, f"the baseline of {model} is with {entry.threads} threads, not {threads}; {again}"
        return entry, ""

    def with_entries(self, machine: Identity, device: str, entries: Mapping[str, BaselineEntry]) -> Baseline:
        """The same with the entries of one machine and device added or replaced."""
        key = fingerprint(machine)
        old = self.machines.get(key, BaselineMachine(machine, {}))
        devices = {**old.devices, device: {**old.devices.get(device, {}), **entries}}
        return Baseline(self.path, {**self.machines, key: BaselineMachine(old.identity, devices)})

    def to_text(self) -> str:
        """The file's content."""
        machines = {
            key: {
                "identity": dict(machine.identity),
                "devices": {
                    device: {name: asdict(entry) for name, entry in sorted(entries.items())}
                    for device, entries in sorted(machine.devices.items())
                },
            }
            for key, machine in sorted(self.machines.items())
        }
        return json.dumps({"format": FORMAT, "machines": machines}, indent=1) + "\n"


def read_baseline(path: str | Path) -> Baseline:
    """Reads a baseline file; ``RuntimeFailure`` for a file that is missing or holds no baseline."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RuntimeFailure(
            f"the baseline {path} cannot be read ({error.strerror}); make one with --write-baseline."
        ) from None
    try:
        data = json.loads(text)
        version = data["format"]
        machines = {str(key): _machine(value) for key, value in data["machines"].items()} if version == FORMAT else {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RuntimeFailure(f"{path} is no baseline file ({error}); make one with --write-baseline.") from None
    if version != FORMAT:
        raise RuntimeFailure(f"{path} has format {version!r}, not {FORMAT}; make it anew.")
    return Baseline(file, machines)


class _EntryTable(TypedDict):
    """A ``BaselineEntry`` in the file."""

    date: str
    threads: int
    sha256: str
    runtime: str
    latency: list[float]
    instructions: list[float]


class _MachineTable(TypedDict):
    """A ``BaselineMachine`` in the file."""

    identity: dict[str, object]
    devices: dict[str, dict[str, _EntryTable]]


def _machine(value: _MachineTable) -> BaselineMachine:
    devices = {
        str(device): {str(name): _entry(entry) for name, entry in entries.items()}
        for device, entries in value["devices"].items()
    }
    return BaselineMachine(dict(value["identity"]), devices)


def _entry(value: _EntryTable) -> BaselineEntry:
    return BaselineEntry(
        str(value["date"]),
        int(value["threads"]),
        str(value["sha256"]),
        str(value["runtime"]),
        _positive(value["latency"]),
        _positive(value["instructions"]),
    )


def _positive(values: list[float]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not all(0 < number < float("inf") for number in numbers):
        raise ValueError("a measured number is not positive")
    return numbers
