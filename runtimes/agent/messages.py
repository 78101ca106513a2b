"""Requests to the agent and its answers: JSON objects, one a line.

The types below name the keys of each answer. The agent fills them; ``edgekron.runtimes.schema`` checks every answer of
a device against them. Lengths of time are whole nanoseconds, amounts of memory are bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict

#: A JSON object whose keys depend on what is asked for. Its values are checked when it arrives, not by types.
Message = dict[str, Any]

#: Called with what is being done, how many steps are finished, and of how many.
Progress = Callable[[str, int, int], None]


class WorkStep(TypedDict):
    """How far the work is."""

    done: int
    total: int
    text: str


class MachineFacts(TypedDict, total=False):
    """Facts that do not change while measuring, as far as the machine tells them (``environment.describe``).

    ``clock`` says what the clock of an emulated machine counts; ``emulator`` and ``packages`` describe an emulated
    board.
    """

    processor: str
    board: str
    machine: str
    virtual: bool
    features: list[str]
    cores: int
    allowed_cores: list[int]
    governor: dict[str, str]
    memory: int
    swap: int
    page_size: int
    clock: str
    system: str
    kernel: str
    python: str
    emulator: str
    packages: dict[str, str]


class MachineState(TypedDict, total=False):
    """Facts that may change while measuring, as far as the machine tells them (``environment.state``).

    Frequencies are in hertz, temperatures in degrees Celsius; the other numbers are counters of the kernel.
    """

    load: list[float]
    available: int
    frequency: dict[str, int]
    temperature: dict[str, float]
    throttled: int
    core_throttles: int
    quota_throttles: int
    swapped_in: int
    swapped_out: int
    stolen_ticks: int


class TensorFacts(TypedDict):
    """An input or output of a model file (``backends.session.TensorInfo``)."""

    name: str
    shape: list[int | None]
    dtype: str
    layout: str


class _RuntimeName(TypedDict):
    runtime: str
    version: str


class RuntimeFacts(_RuntimeName, total=False):
    """The runtime of a model file: its name, its version, and all that it tells of the execution.

    ``partitions`` counts the pieces of the graph that the delegate took, ``not_delegated`` lists the operators that the
    delegate left. ``samples`` describes samples that are no single inferences.
    """

    delegate: str
    threads: int
    spinning: bool
    partitions: int
    not_delegated: list[str]
    samples: str


class ColdTimes(TypedDict):
    """Nanoseconds from starting the process to the first inference; None where the runtime does not tell them apart."""

    process: int | None
    runtime: int | None
    load: int
    first: int


class PacedTimes(TypedDict):
    """Inferences at a fixed rate; ``late`` where one takes longer than the pause between two."""

    hertz: float
    nanoseconds: list[int]
    late: bool


class MemoryNumbers(TypedDict):
    """The five numbers of ``edgekron.runtimes.agent.memory``."""

    file: int
    runtime: int | None
    loaded: int | None
    peak: int | None
    steady: int | None


class FileAnswer(TypedDict):
    """All that was measured of one file; ``rounds`` holds the nanoseconds of each turn."""

    name: str
    runtime: RuntimeFacts
    input: TensorFacts
    outputs: list[TensorFacts]
    cores: list[int] | None
    cold: ColdTimes
    warm_up: int
    settled: bool
    rounds: list[list[int]]
    paced: PacedTimes | None
    memory: MemoryNumbers


class MeasureAnswer(TypedDict):
    """The answer to ``measure``: the machine before, after each round, and after all, and the files."""

    facts: MachineFacts
    before: MachineState
    during: list[MachineState]
    after: MachineState
    files: list[FileAnswer]


#: How far a process under a limit of memory comes.
Stage = Literal["start", "load", "run", "done"]


class ProveAnswer(TypedDict):
    """The answer to ``prove`` (``edgekron.runtimes.agent.proof``)."""

    means: str
    lived: bool
    stage: Stage
    reason: str | None
    peak: int | None
    memory: MemoryNumbers | None


class NodeAnswer(TypedDict):
    """One node of a profiled file."""

    name: str
    operator: str
    seconds: float


class ProfileAnswer(TypedDict):
    """The answer to ``profile`` (``edgekron.runtimes.agent.profile``)."""

    nodes: list[NodeAnswer]


class ArenaAnswer(TypedDict):
    """The answer to ``arena`` (``edgekron.runtimes.agent.arena``)."""

    litert: int | None
    micro: int | None
    micro_head: int | None
    note: str | None


class Disk(TypedDict):
    """The agent's folder, and the bytes that are free there."""

    folder: str
    free: int


class DescribeAnswer(TypedDict):
    """The answer to ``describe``; ``runtimes`` are versions of distributions, None for one that is missing."""

    facts: MachineFacts
    state: MachineState
    runtimes: dict[str, str | None]
    disk: Disk
    python: str
    protocol: int


class HeldAnswer(TypedDict):
    """The answer to ``held``: how much of a file is there."""

    bytes: int
    whole: bool
    path: str


class ReceiveAnswer(TypedDict):
    """The answer to ``receive``: where the file lies."""

    path: str


class StartAnswer(TypedDict):
    """The answer to ``start``: the name of the job."""

    job: str
