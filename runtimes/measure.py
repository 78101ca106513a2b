"""Latency and memory of model files, measured so that two files can be compared.

Each file lives in a fresh process that is pinned to the same cores; all processes but one wait on their pipe. After a
warm-up that lasts until the median no longer moves, the files take turns: in every round each has one turn, in a new
random order. A turn starts with a few inferences that are not counted (they bring the caches back), then times
back-to-back inferences on one input of seeded random normal numbers. This is the steady state of a busy application;
the first inference, the load and the start of the process are reported beside it. One inference is one array in,
arrays out, the runtime's own copies included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekron.runtimes.backends import backend
from edgekron.runtimes.devices import Connection, Device, open_device
from edgekron.runtimes.environment import disturbances
from edgekron.runtimes.errors import RuntimeFailure
from edgekron.runtimes.memory import Memory
from edgekron.runtimes.results import ColdStart, FileResult, Report
from edgekron.runtimes.statistics import settled

#: (steps done, steps in all, what is being done now)
Progress = Callable[[int, int, str], None]

#: Warm-up: stretches of this many seconds are compared, at least three, at most this many.
_STRETCH = 0.1
_FEWEST_STRETCHES = 3
_MOST_STRETCHES = 30
#: A turn has at most this many inferences, and a tenth of its length before it that is not counted.
_LONGEST_TURN = 10_000
_LEAD_IN = 10


def bench(
    files: Sequence[str | Path],
    *,
    threads: int = 1,
    rounds: int = 20,
    seconds: float = 4.0,
    pin: bool = True,
    seed: int = 0,
    device: Device | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measures files against the first of them.

    ``seconds`` is the timed part for each file, spread over ``rounds``; warm-up comes on top. ``pin`` keeps every
    process on ``threads`` cores, the fastest ones. ``device`` is this machine unless given; the caller closes it.
    Raises ``RuntimeFailure`` for a file that cannot be run.
    """
    if not files:
        raise RuntimeFailure("no file to measure was given; name at least one .onnx or .tflite file.")
    if threads < 1 or rounds < 1 or seconds <= 0:
        raise RuntimeFailure(f"threads {threads}, rounds {rounds} and seconds {seconds} must all be positive.")
    for file in files:
        backend(file)
        if not Path(file).is_file():
            raise RuntimeFailure(f"{file} does not exist; check the path.")
    report = progress or _silent
    total = len(files) + rounds
    with ExitStack() as stack:
        if device is None:
            device = stack.enter_context(closing(open_device("local")))
        observer = stack.enter_context(device.start("the environment"))
        machine = observer.ask("environment", threads=threads)
        cores = machine["cores"] if pin else None
        subjects = []
        for index, file in enumerate(files):
            report(index, total, f"warming up {Path(file).name}")
            agent = stack.enter_context(device.start(str(file), threads))
            subjects.append(_prepare(agent, str(file), device.put(Path(file)), threads, cores, seed))
        random = np.random.default_rng(seed)
        for turn in range(rounds):
            report(len(files) + turn, total, f"round {turn + 1} of {rounds}")
            for index in random.permutation(len(subjects)):
                subjects[index].take_turn(seconds / rounds, seed)
        results = tuple(subject.result() for subject in subjects)
        after = observer.ask("state")["state"]
    report(total, total, "done")
    warnings = [
        f"{result.file} had not settled after {result.warm_up} warm-up inferences"
        for result in results
        if not result.settled
    ]
    warnings += disturbances(machine["facts"], machine["state"], after)
    return Report(device.name, threads, seed, machine["facts"], machine["state"], after, results, tuple(warnings))


def _silent(done: int, total: int, text: str) -> None:
    """The progress that nobody watches."""


@dataclass
class _Subject:
    """A file in its process, warm; collects the samples of its turns in seconds."""

    agent: Connection
    file: str
    loaded: dict[str, Any]
    cold: ColdStart
    warm_up: int
    settled: bool
    typical: float
    rounds: list[tuple[float, ...]] = field(default_factory=list)

    def take_turn(self, seconds: float, seed: int) -> None:
        """One turn of about ``seconds``, at least one inference."""
        count = _count(seconds, self.typical)
        _time(self.agent, max(1, count // _LEAD_IN), seed)
        self.rounds.append(_time(self.agent, count, seed))

    def result(self) -> FileResult:
        """What was measured, with the memory as it is now."""
        loaded = self.loaded
        return FileResult(
            file=self.file,
            runtime=loaded["runtime"],
            input=loaded["input"],
            cores=tuple(loaded["cores"]) if loaded["cores"] else None,
            cold=self.cold,
            warm_up=self.warm_up,
            settled=self.settled,
            rounds=tuple(self.rounds),
            memory=Memory(**self.agent.ask("memory")["memory"]),
        )


def _prepare(agent: Connection, file: str, path: str, threads: int, cores: list[int] | None, seed: int) -> _Subject:
    """Loads a file and warms it up until two consecutive stretches have the same median."""
    loaded = agent.ask("load", file=path, threads=threads, cores=cores)
    (first,) = _time(agent, 1, seed)
    cold = ColdStart(agent.start_seconds, loaded["import_ns"] / 1e9, loaded["load_ns"] / 1e9, first)
    typical, warm_up, steady = first, 1, False
    earlier: tuple[float, ...] = ()
    for stretch in range(_MOST_STRETCHES):
        later = _time(agent, _count(_STRETCH, typical), seed)
        warm_up += len(later)
        typical = float(np.median(later))
        steady = stretch + 1 >= _FEWEST_STRETCHES and settled(earlier, later)
        if steady:
            break
        earlier = later
    return _Subject(agent, file, loaded, cold, warm_up, steady, typical)


def _count(seconds: float, typical: float) -> int:
    return min(max(1, round(seconds / typical)), _LONGEST_TURN)


def _time(agent: Connection, count: int, seed: int) -> tuple[float, ...]:
    return tuple(sample / 1e9 for sample in agent.ask("time", count=count, seed=seed)["nanoseconds"])
