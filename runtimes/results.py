"""The results of a measurement: plain data, raw samples included, for JSON and for the rows of a table.

Times are in seconds, memory in bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

from .statistics import Interval, Summary, median_interval, speedup, summary

if TYPE_CHECKING:
    from .agent.memory import Memory
    from .agent.messages import MachineFacts, MachineState, RuntimeFacts, TensorFacts

#: Of the JSON; raised whenever a field changes its meaning.
FORMAT = 1

#: What the figures are, for a reader of the JSON.
DEFINITIONS = {
    "latency": "of all warm inferences of the file together, in seconds",
    "interval": "median of the rounds' medians, in seconds, with its bootstrap interval over rounds",
    "speedups": "how many times as fast as the reference: the median over rounds of the ratio of both files' lower "
    "quartiles, with its bootstrap interval over rounds. Other programs slow down the upper quartiles first, so this "
    "is not the ratio of the medians on a busy machine",
    "paced": "inferences at a fixed rate, asleep in between",
    "cold": "from starting the process to the first inference, measured once, in seconds",
}

Rounds = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ColdStart:
    """The way from nothing to the first answer, measured once in the fresh process, in seconds.

    ``process`` is from starting the process to its first word; ``runtime`` imports the runtime, ``load`` opens the
    model, ``first`` is the first inference. None: a device's own program that does not tell them apart.
    """

    process: float | None
    runtime: float | None
    load: float
    first: float

    @property
    def total(self) -> float | None:
        """From starting the process to ready, without the first inference."""
        if self.process is None or self.runtime is None:
            return None
        return self.process + self.runtime + self.load


@dataclass(frozen=True)
class Paced:
    """Inferences begun at a fixed rate, asleep in between; no sample where one takes longer than the pause."""

    hertz: float
    samples: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        """The rate, the summary and the raw samples in whole nanoseconds."""
        return {
            "hertz": self.hertz,
            "latency": asdict(summary(self.samples)) if self.samples else None,
            "nanoseconds": [round(1e9 * sample) for sample in self.samples],
        }


@dataclass(frozen=True)
class FileResult:
    """Everything measured of one file."""

    file: str
    runtime: RuntimeFacts
    input: TensorFacts
    cores: tuple[int, ...] | None
    cold: ColdStart
    warm_up: int
    settled: bool
    rounds: Rounds
    memory: Memory
    paced: Paced | None = None

    @cached_property
    def latency(self) -> Summary:
        """Summary of all warm inferences, in seconds."""
        return summary([sample for samples in self.rounds for sample in samples])

    @cached_property
    def interval(self) -> Interval:
        """The median over the rounds, with its interval."""
        return median_interval(self.rounds)

    def to_json(self) -> dict[str, object]:
        """All fields, the raw samples in whole nanoseconds."""
        return {
            "file": self.file,
            "runtime": dict(self.runtime),
            "input": dict(self.input),
            "cores": self.cores,
            "cold": {**asdict(self.cold), "total": self.cold.total},
            "warm_up": self.warm_up,
            "settled": self.settled,
            "latency": asdict(self.latency),
            "interval": asdict(self.interval),
            "paced": self.paced.to_json() if self.paced else None,
            "memory": self.memory.to_json(),
            "nanoseconds": [[round(1e9 * sample) for sample in samples] for samples in self.rounds],
        }


class ReportRow(TypedDict):
    """One file in a table: ``median`` is that of the interval, and ``speedup`` None for the reference."""

    file: str
    runtime: str
    median: float
    mad: float
    p5: float
    p95: float
    p99: float
    interval: Interval
    speedup: Interval | None
    cold: float | None
    load: float
    first: float
    paced: Summary | None
    memory: Memory


@dataclass(frozen=True)
class Report:
    """A measurement of one or several files on one device; the first file is the reference of the others."""

    device: str
    threads: int
    seed: int
    environment: MachineFacts
    before: MachineState
    after: MachineState
    files: tuple[FileResult, ...]
    warnings: tuple[str, ...] = field(default=())
    #: The state of the machine after each round.
    during: tuple[MachineState, ...] = field(default=())

    @cached_property
    def speedups(self) -> tuple[Interval, ...]:
        """How many times faster than the first file each of the others is, by ``statistics.speedup``."""
        reference, *others = self.files
        return tuple(speedup(reference.rounds, other.rounds, seed=self.seed) for other in others)

    def to_json(self) -> dict[str, object]:
        """Plain data that ``json.dumps`` takes."""
        others = self.files[1:]
        return {
            "format": FORMAT,
            "device": self.device,
            "threads": self.threads,
            "seed": self.seed,
            "environment": dict(self.environment),
            "before": dict(self.before),
            "during": [dict(state) for state in self.during],
            "after": dict(self.after),
            "warnings": list(self.warnings),
            "units": {"time": "second", "memory": "byte", "nanoseconds": "raw samples by round"},
            "definitions": DEFINITIONS,
            "reference": self.files[0].file,
            "speedups": [
                {"file": other.file, **asdict(interval)} for other, interval in zip(others, self.speedups, strict=True)
            ],
            "files": [file.to_json() for file in self.files],
        }

    def table(self) -> list[ReportRow]:
        """One row a file."""
        intervals = (None, *self.speedups)
        return [
            {
                "file": file.file,
                "runtime": f"{file.runtime['runtime']} {file.runtime['version']}",
                "median": file.interval.value,
                "mad": file.latency.mad,
                "p5": file.latency.p5,
                "p95": file.latency.p95,
                "p99": file.latency.p99,
                "interval": file.interval,
                "speedup": interval,
                "cold": file.cold.total,
                "load": file.cold.load,
                "first": file.cold.first,
                "paced": summary(file.paced.samples) if file.paced and file.paced.samples else None,
                "memory": file.memory,
            }
            for file, interval in zip(self.files, intervals, strict=True)
        ]
