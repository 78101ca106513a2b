"""One block of measurements; no other module of a check knows how measuring is done.

A block is one call of ``bench``, or of an emulated board's ``count``: fresh processes for each file, which take short
turns. Blocks are independent of each other down to the layout of the processes' memory, which alone moves a latency by
a percent or two; the samples inside one block are not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from edgekron.runtimes.agent.environment import disturbances
from edgekron.runtimes.devices import LocalDevice
from edgekron.runtimes.measure import LIMIT, Measuring, bench, sent
from edgekron.runtimes.statistics import log_ratios

if TYPE_CHECKING:
    from edgekron.runtimes.agent.messages import MachineFacts, RuntimeFacts
    from edgekron.runtimes.devices import Device
    from edgekron.runtimes.devices.emulation.device import EmulatedDevice
    from edgekron.runtimes.results import Report

#: Turns of a file in one block, and the timed seconds they share: long enough for dozens of inferences of a small
#: network, short enough for its neighbour in time to see the same machine.
_ROUNDS = 16
_SECONDS = 0.6
#: Seconds of watching the machine before a block, and the share of its processors that counts as busy.
_WATCH = 0.2
_BUSY = 0.25
#: Seconds to wait for another measurement on the same machine: a board may serve several jobs.
_PATIENCE = 900.0
#: Of ``environment.disturbances``: these spoil a measurement, the others are worth a note.
_SPOILS = ("throttled", "swapped")
#: This one means that the file had to wait.
_WAITED = "quota"


@dataclass(frozen=True)
class Run:
    """One file in one block: the samples of each turn in seconds, memory in bytes, and the facts of its runtime."""

    rounds: tuple[tuple[float, ...], ...]
    memory: Mapping[str, int | None]
    runtime: RuntimeFacts
    #: Bytes of the tensor arenas by the name of their limit.
    arena: Mapping[str, int | None] = field(default_factory=dict)
    instructions: float | None = None

    @cached_property
    def median(self) -> float:
        """The median latency in seconds."""
        return float(np.median(np.concatenate(self.rounds)))

    @cached_property
    def p95(self) -> float:
        """The 95th percentile of the latencies in seconds."""
        return float(np.percentile(np.concatenate(self.rounds), 95))

    @property
    def not_delegated(self) -> int | None:
        """Operators that the runtime did not hand to its delegate; None for a runtime that does not say."""
        operators = self.runtime.get("not_delegated")
        return None if operators is None else len(operators)


@dataclass(frozen=True)
class MeasuredBlock:
    """The files' runs in the order in which they were asked for, and the machine while they ran."""

    runs: tuple[Run, ...]
    facts: MachineFacts
    #: Reasons why the block is worthless for times.
    spoilt: tuple[str, ...]
    #: Sentences for the reader of the report.
    notes: tuple[str, ...]
    #: Why the block may be slower than the machine is, or None.
    busy: str | None

    @cached_property
    def log_ratio(self) -> float:
        """The logarithm of the first file's latency over the last one's, the median over the rounds."""
        return float(np.median(log_ratios(self.runs[0].rounds, self.runs[-1].rounds)))


def counts_instructions(device: Device) -> bool:
    """Whether a device has no clock worth reading and counts instructions instead."""
    return device.unit == "instruction"


def measure_block(
    files: Sequence[Path], device: Device, threads: int, index: int, arena: bool = False
) -> MeasuredBlock:
    """Measures one block; every other one mirrors the one before: the files change places in all orders.

    ``arena`` asks for the tensor arena of the first file too.
    """
    if counts_instructions(device):
        return _counted(files, cast("EmulatedDevice", device), _arenas(files[0], device, threads) if arena else {})
    busy = _busy() if isinstance(device, LocalDevice) else None
    step = -1 if index % 2 else 1
    how = Measuring(threads=threads, rounds=_ROUNDS, seconds=_SECONDS, seed=index // 2, patience=_PATIENCE)
    report = bench(files[::step], how, device=device)
    arenas = _arenas(files[0], device, threads) if arena else {}
    # Of the machine alone: other sentences hold names of files, which may be any words.
    disturbed = disturbances(report.environment, report.before, report.after, report.during)
    spoilt = tuple(text for text in disturbed if any(word in text for word in _SPOILS))
    # Between blocks our own processes are the load, so that sentence says nothing here.
    ignored = (*spoilt, *(text for text in disturbed if "busy before" in text))
    return MeasuredBlock(
        runs=tuple(
            Run(result.rounds, result.memory.to_json(), result.runtime, arenas) for result in report.files[::step]
        ),
        facts=report.environment,
        spoilt=spoilt,
        notes=tuple(text for text in report.warnings if text not in ignored),
        busy=busy or next((text for text in disturbed if _WAITED in text), None) or _stolen(report),
    )


def _counted(files: Sequence[Path], device: EmulatedDevice, arenas: Mapping[str, int | None]) -> MeasuredBlock:
    report = device.count(files)
    nothing = dict.fromkeys(("file", "runtime", "loaded", "peak", "steady"))
    return MeasuredBlock(
        runs=tuple(Run((), nothing, count.runtime, arenas, count.instructions) for count in report.files),
        facts=report.board,
        spoilt=(),
        notes=report.warnings,
        busy=None,
    )


def _arenas(file: Path, device: Device, threads: int) -> dict[str, int | None]:
    """The tensor arenas in bytes by the name of their limit; None where the runtime is missing."""
    request = {"do": "arena", "file": sent(device, file), "threads": threads, "limit_s": LIMIT, "patience": _PATIENCE}
    answer = device.run_agent(request)
    return {"arena": answer["litert"], "arena_micro": answer["micro"]}


def _busy() -> str | None:
    """How busy other processes keep this machine while this one waits; None where they do not."""
    before = _processor_ticks()
    time.sleep(_WATCH)
    after = _processor_ticks()
    if before is None or after is None or after[1] <= before[1]:
        return None
    share = (after[0] - before[0]) / (after[1] - before[1])
    return f"other processes kept the processors {share:.0%} busy" if share > _BUSY else None


def _processor_ticks() -> tuple[int, int] | None:
    """Ticks of all processors at work and in all, since the start of the machine."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def _stolen(report: Report) -> str | None:
    """Whether the hypervisor gave this machine's processors to another one."""
    ticks = report.after.get("stolen_ticks", 0) - report.before.get("stolen_ticks", 0)
    measured = sum(sum(samples) for file in report.files for samples in file.rounds)
    # A tick is a hundredth of a second; half of them may have fallen on processors that we did not use.
    return "the hypervisor took the processors away" if ticks / 100 > _BUSY * measured else None
