"""Stopping early must not cost the intervals their truth, nor a slower file its discovery."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgekron.runtimes.check.budget import CheckEffort
from edgekron.runtimes.check.estimates import estimate
from edgekron.runtimes.check.sampling import Instruments, clear, sample
from edgekron.runtimes.ranks import FEWEST, pseudomedian
from edgekron.runtimes.statistics import Interval

from .conftest import Machine

FILES = [Path("a.onnx"), Path("b.onnx")]


class Clock:
    """Every block takes four seconds."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __call__(self) -> float:
        return 4.0 * self.machine.blocks


def compare(machine: Machine, limit: float | None = None) -> tuple[Interval, int]:
    """The ratio of a to b, within 60 seconds, and the blocks it took."""
    key = "latency_vs_reference"
    blocks = sample(
        FILES,
        machine,
        CheckEffort(seconds=60),
        FEWEST,
        lambda blocks: [(estimate(key, blocks, None), limit)],
        lambda _what, _done, _total: None,
        instruments=Instruments(machine.measure, Clock(machine)),
    )
    return estimate(key, blocks, None), len(blocks)


@pytest.mark.parametrize(("scatter", "limit"), [(0.002, None), (0.01, None), (0.01, 1.02), (0.02, 1.02)])
def test_a_file_against_itself_is_one_nearly_always(scatter: float, limit: float | None) -> None:
    trials = 100
    found = [compare(Machine(scatter=scatter, shared=0.3, seed=seed), limit)[0] for seed in range(trials)]
    assert sum(interval.low <= 1.0 <= interval.high for interval in found) >= 0.9 * trials
    assert sum(interval.low > 1.02 for interval in found) <= 0.01 * trials


@pytest.mark.parametrize("scatter", [0.002, 0.02])
def test_five_percent_are_found(scatter: float) -> None:
    trials = 60
    machines = [Machine(latency={"a.onnx": 1.05e-3}, scatter=scatter, shared=0.3, seed=seed) for seed in range(trials)]
    assert sum(compare(machine)[0].low > 1.0 for machine in machines) >= 0.9 * trials


def test_quiet_machines_are_measured_shortly_and_noisy_ones_for_as_long_as_allowed() -> None:
    assert compare(Machine(scatter=0.001))[1] == FEWEST
    assert compare(Machine(scatter=0.2))[1] == 15
    # Far from its limit, noise does not matter.
    assert compare(Machine(scatter=0.05), limit=3.0)[1] < 15


def test_clear_is_narrow_or_far_from_the_limit() -> None:
    narrow, wide = Interval(1.0, 0.995, 1.005), Interval(1.0, 0.9, 1.1)
    assert clear((narrow, 1.0), 0.01)
    assert not clear((wide, None), 0.01)
    assert not clear((wide, 1.15), 0.01)
    assert clear((wide, 1.25), 0.01)
    assert clear((wide, 0.8), 0.01)


def test_the_sum_of_correlated_rounds_does_not_narrow_the_interval() -> None:
    """Rounds of one block share their process; an interval over rounds would believe in them."""
    random = np.random.default_rng(0)
    covered = rounds = 0
    for _ in range(60):
        offsets = random.normal(scale=0.02, size=8)
        logs = offsets[:, None] + random.normal(scale=0.001, size=(8, 16))
        interval = pseudomedian(list(np.median(logs, axis=1)))
        covered += interval.low <= 0.0 <= interval.high
        rounds += abs(logs.mean()) <= 1.96 * logs.std() / math.sqrt(logs.size)
    assert covered >= 54
    assert rounds < 40
