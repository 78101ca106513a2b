"""The measurement of several files against each other, as it runs on the device.

Each file lives in a fresh process (``edgekron.runtimes.agent.worker``) pinned to the same cores; all processes but one
wait on their pipe. After a warm-up that lasts until the median no longer moves, the files take turns: in every round
each file has one turn, in a new random order. A turn starts with a few inferences that are not counted (they bring the
caches back), then times back-to-back inferences on one input of seeded random normal numbers. Then, if a pace is given,
each file runs at that fixed rate, asleep in between, as an application that waits for its camera does: caches and
clocks fall in the pauses, and these times are the longer ones.

The state of the machine is read before, after every round, and at the end.
"""

from __future__ import annotations

import os
import random
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from . import environment
from .connection import Connection
from .errors import RuntimeFailure
from .messages import ColdTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import (
        FileAnswer,
        MachineState,
        MeasureAnswer,
        Message,
        PacedTimes,
        Progress,
    )

#: Environment variables by which numerical libraries take their number of threads.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

#: Warm-up: stretches of this many nanoseconds, or of the timed part where that is shorter, are compared: at least
#: three, at most this many.
_STRETCH = 100_000_000
_FEWEST_STRETCHES = 3
_MOST_STRETCHES = 30
#: A turn has at most this many inferences, and a tenth of its length before it that is not counted.
_LONGEST_TURN = 10_000
_LEAD_IN = 10
#: Two stretches have the same median when theirs differ by no more than this share, or than the noise explains.
_TOLERANCE = 0.02
#: From the median absolute deviation to the standard deviation, and on to a median's standard error (times sqrt n).
_NORMAL = 1.4826
_MEDIAN_ERROR = 1.2533


def start_worker(subject: str, threads: int, command: Sequence[str] | None = None) -> Connection:
    """A fresh worker of this very archive; ``command`` replaces how it is started."""
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    return Connection(command or worker_command(), variables, subject)


def worker_command() -> list[str]:
    """How this archive starts itself as a worker."""
    return [sys.executable, sys.argv[0], "work"]


def measure(request: Message, progress: Progress) -> MeasureAnswer:
    """Carries out a ``measure`` request (see ``edgekron.runtimes.agent.requests``); raises ``RuntimeFailure``."""
    files, threads, rounds, seed = request["files"], request["threads"], request["rounds"], request["seed"]
    share = int(1e9 * request["seconds"] / rounds)
    cores = environment.fastest_cores(threads) if request["pin"] else None
    hertz = request["hertz"]
    total = len(files) + rounds + (len(files) if hertz else 0)
    facts, before = environment.describe(), environment.state()
    during: list[MachineState] = []
    turns = orders(len(files), rounds, seed)
    with ExitStack() as stack:
        measured = []
        for index, sent in enumerate(files):
            progress(f"warming up {sent['name']}", index, total)
            worker = stack.enter_context(start_worker(sent["name"], threads))
            file = MeasuredFile(worker, sent["path"], sent["name"], seed)
            file.prepare(threads, cores, min(_STRETCH, int(1e9 * request["seconds"])))
            measured.append(file)
        for turn, order in enumerate(turns):
            progress(f"round {turn + 1} of {rounds}", len(files) + turn, total)
            for index in order:
                measured[index].take_turn(share)
            during.append(environment.state())
        for index, file in enumerate(measured if hertz else []):
            progress(f"{file.name} at {hertz:g} per second", len(files) + rounds + index, total)
            file.keep_pace(hertz, request["paced_seconds"])
        results = [file.result() for file in measured]
    progress("done", total, total)
    return {"facts": facts, "before": before, "during": during, "after": environment.state(), "files": results}


def orders(files: int, rounds: int, seed: int) -> list[list[int]]:
    """The order of the files in each round: shuffled, backwards in the next two, and as it was in the fourth.

    So each file goes before each other file as often as after it, and follows itself as often as the others do: no file
    is favoured by its place (by caches as the file before left them, by the look at the machine between rounds). Left
    to chance, one file may go first in 13 of 16 rounds.
    """
    shuffle = random.Random(seed).sample  # noqa: S311 - an order, not a secret
    found: list[list[int]] = []
    while len(found) < rounds:
        order = shuffle(range(files), files)
        found += [order, order[::-1], order[::-1], order]
    return found[:rounds]


@dataclass
class MeasuredFile:
    """A file in its process; collects the nanoseconds of its turns. Errors name the file as the user does."""

    worker: Connection
    path: str
    name: str
    seed: int
    loaded: Message = field(default_factory=dict)
    cold: ColdTimes = field(default_factory=lambda: ColdTimes(process=None, runtime=None, load=0, first=0))
    warm_up: int = 0
    settled: bool = False
    typical: float = 0.0
    rounds: list[list[int]] = field(default_factory=list)
    paced: PacedTimes | None = None

    def prepare(self, threads: int, cores: list[int] | None, nanoseconds: int) -> None:
        """Loads the file and warms it up until two consecutive stretches, of so long each, have the same median."""
        self.loaded = self._ask("load", file=self.path, threads=threads, cores=cores)
        (first,) = self._time(1)
        start = round(1e9 * self.worker.start_seconds)
        runtime, load = self.loaded["import_ns"], self.loaded["load_ns"]
        self.cold = {"process": start, "runtime": runtime, "load": load, "first": first}
        self.typical, self.warm_up = first, 1
        earlier: list[int] = []
        for stretch in range(_MOST_STRETCHES):
            later = self._time(_count(nanoseconds, self.typical))
            self.warm_up += len(later)
            self.typical = median(later)
            if stretch + 1 >= _FEWEST_STRETCHES and same_median(earlier, later):
                self.settled = True
                return
            earlier = later

    def take_turn(self, nanoseconds: int) -> None:
        """One turn of about so long, at least one inference."""
        count = _count(nanoseconds, self.typical)
        self._time(max(1, count // _LEAD_IN))
        self.rounds.append(self._time(count))

    def keep_pace(self, hertz: float, seconds: float) -> None:
        """Inferences at a fixed rate; refused where one takes longer than the pause between two."""
        if self.typical * hertz > 1e9:
            self.paced = {"hertz": hertz, "nanoseconds": [], "late": True}
            return
        samples = self._time(max(2, round(seconds * hertz)), period_ns=round(1e9 / hertz))
        # The first one follows the warm turns at once: it is not yet paced.
        self.paced = {"hertz": hertz, "nanoseconds": samples[1:], "late": False}

    def result(self) -> FileAnswer:
        """All measurements of the file, with the memory as it is now."""
        return {
            "name": self.name,
            "runtime": self.loaded["runtime"],
            "input": self.loaded["input"],
            "outputs": self.loaded["outputs"],
            "cores": self.loaded["cores"],
            "cold": self.cold,
            "warm_up": self.warm_up,
            "settled": self.settled,
            "rounds": self.rounds,
            "paced": self.paced,
            "memory": self._ask("memory")["memory"],
        }

    def _time(self, count: int, period_ns: int = 0) -> list[int]:
        samples: list[int] = self._ask("time", count=count, seed=self.seed, period_ns=period_ns)["nanoseconds"]
        return samples

    def _ask(self, do: str, **arguments: Any) -> Message:
        try:
            return self.worker.ask(do, **arguments)
        except RuntimeFailure as error:
            raise RuntimeFailure(str(error).replace(self.path, self.name)) from None


def same_median(earlier: Sequence[float], later: Sequence[float]) -> bool:
    """Whether two stretches of samples have the same median, within 2 % or twice the error of the difference."""
    first, second = median(earlier), median(later)
    error = 0.0
    for samples, middle in ((earlier, first), (later, second)):
        spread = _NORMAL * median(abs(sample - middle) for sample in samples)
        error += (_MEDIAN_ERROR * spread) ** 2 / len(samples)
    return bool(abs(first - second) <= max(_TOLERANCE * second, 2 * error**0.5))


def _count(nanoseconds: int, typical: float) -> int:
    return min(max(1, round(nanoseconds / typical)), _LONGEST_TURN)
