"""Several small model files timed in this process, taking turns.

``edgekron bench`` gives every file a process of its own, which is right for a network and too slow for the hundreds of
single layers of a tuning. Here all files of one layer are open at once: their thread pools do not spin, so that an idle
file costs nothing. In every round each file has one turn, in a new random order, so that a disturbance of the round
meets all files. A turn begins with inferences that are not counted, which bring the caches back.

With one thread the clock is the processor time of that thread, which stands still while another process has the core:
other work of the machine does not spoil a tuning. With several threads the clock is the wall clock.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgekron.runtimes.agent.backends import load, random_input
from edgekron.runtimes.agent.environment import fastest_cores
from edgekron.runtimes.statistics import Interval, speedup

if TYPE_CHECKING:
    from pathlib import Path

    from edgekron.runtimes.agent.messages import RuntimeFacts

#: A turn lasts about this many seconds, and is at least this many inferences.
TURN = 0.012
_FEWEST = 3
_MOST = 1000


class Race:
    """Files that are timed against each other; ``rounds`` has each file's samples in seconds, round by round.

    All files get the same random numbers. Raises ``RuntimeFailure`` for a file that cannot be opened.
    """

    def __init__(self, files: Sequence[Path], *, threads: int) -> None:
        self._sessions = [load(file, threads) for file in files]
        self._inputs = [random_input(session, 0) for session in self._sessions]
        self._random = np.random.default_rng(0)
        self._clock = time.thread_time if threads == 1 else time.perf_counter
        self.rounds: list[list[list[float]]] = [[] for _ in files]
        self._typical = [0.0] * len(files)
        for index in range(len(files)):
            self._time(index, 1)
            self._typical[index] = float(np.median(self._time(index, _FEWEST)))

    def outputs(self) -> list[np.ndarray]:
        """The first output of every file."""
        return [session.run(x)[0].copy() for session, x in zip(self._sessions, self._inputs, strict=True)]

    def describe(self) -> RuntimeFacts:
        """Runtime, version and threads, as the first session describes itself."""
        return self._sessions[0].describe()

    def run(self, count: int, indices: Iterable[int], seconds: float | None = None) -> None:
        """``count`` rounds among the files ``indices``, in turns of ``seconds``, ``TURN`` unless given.

        Only files that ran the same rounds can be compared.
        """
        chosen = list(indices)
        for _ in range(count):
            for index in self._random.permutation(chosen):
                wanted = round((TURN if seconds is None else seconds) / max(self._typical[index], 1e-9))
                turn = min(max(wanted, _FEWEST), _MOST)
                self._time(index, max(1, turn // 10))
                samples = self._time(index, turn)
                self._typical[index] = float(np.median(samples))
                self.rounds[index].append(samples)

    def seconds(self, index: int, last: int) -> float:
        """Median of the samples of the last rounds."""
        return float(np.median([sample for samples in self.rounds[index][-last:] for sample in samples]))

    def ratio(self, reference: int, other: int, last: int) -> Interval:
        """How many times faster ``other`` is in the last rounds, which both must have run."""
        return speedup(self.rounds[reference][-last:], self.rounds[other][-last:])

    def close(self) -> None:
        """Closes all files."""
        for session in self._sessions:
            session.close()

    def _time(self, index: int, count: int) -> list[float]:
        run, x, clock = self._sessions[index].run, self._inputs[index], self._clock
        samples = []
        gc.disable()
        try:
            for _ in range(count):
                start = clock()
                run(x)
                samples.append(clock() - start)
        finally:
            gc.enable()
        return samples


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keeps this thread, and all threads started by it, on the ``threads`` fastest cores within the block."""
    cores = fastest_cores(threads)
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
