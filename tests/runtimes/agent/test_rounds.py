from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.agent.connection import Connection
from edgekron.runtimes.agent.rounds import orders, same_median
from edgekron.runtimes.agent.worker import Worker
from edgekron.runtimes.devices import LocalDevice


def test_a_falling_median_is_told_from_noise() -> None:
    random = np.random.default_rng(0)
    noisy = [random.normal(1.0, 0.2, 50).tolist() for _ in range(2)]
    assert same_median(noisy[0], noisy[1])
    assert not same_median([2.0] * 20, [1.0] * 20)
    assert same_median([1.01] * 20, [1.0] * 20)
    assert not same_median([1.03] * 20, [1.0] * 20)


@pytest.mark.parametrize("files", [1, 2, 3, 5])
@pytest.mark.parametrize("rounds", [1, 6, 15, 16])
def test_no_file_goes_first_more_often_than_another(files: int, rounds: int) -> None:
    for seed in range(20):
        found = orders(files, rounds, seed)
        assert [sorted(order) for order in found] == [list(range(files))] * rounds
        for a in range(files):
            for b in range(a):
                before = sum(order.index(a) < order.index(b) for order in found)
                assert abs(2 * before - rounds) == rounds % 2
    assert len({str(orders(4, 16, seed)) for seed in range(20)}) == 20


def test_a_period_spaces_inferences_without_being_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only sleeping and running move: an inference takes 3, and begins at every 10."""
    now, begun = 0, []

    class Session:
        file = "x"

        def run(self, x: np.ndarray) -> None:
            nonlocal now
            begun.append(now)
            now += 3

    def sleep(seconds: float) -> None:
        nonlocal now
        now += round(1e9 * seconds)

    monkeypatch.setattr("time.perf_counter_ns", lambda: now)
    monkeypatch.setattr("time.sleep", sleep)
    worker = Worker()
    worker._session, worker._input = Session(), np.zeros(1)
    assert worker.answer({"do": "time", "count": 4, "seed": 0, "period_ns": 10}) == {"ok": True, "nanoseconds": [3] * 4}
    assert begun == [0, 10, 20, 30]
    assert worker.answer({"do": "time", "count": 2, "seed": 0})["nanoseconds"] == [3, 3]
    assert begun[4:] == [33, 36]


def test_a_limit_of_private_memory_holds_where_no_group_can_be_made(
    device: LocalDevice, write_onnx: Callable[..., Path], kernel: np.ndarray
) -> None:
    large, small = write_onnx(np.ones((1024, 1024, 3, 3), np.float32), (4, 4)), write_onnx(kernel, (7, 10))
    work = [sys.executable, str(device.agent), "work"]
    for file, limit, lives in [(small, 400 * 2**20, True), (large, 60 * 2**20, False)]:
        command = [sys.executable, str(device.agent), "limit", str(limit), *work]
        with Connection(command, {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}, "model") as worker:
            if lives:
                worker.ask("load", file=str(file), threads=1, cores=None)
                assert len(worker.ask("time", count=1, seed=0)["nanoseconds"]) == 1
            else:
                with pytest.raises(RuntimeFailure, match="memory|alloc"):
                    worker.ask("load", file=str(file), threads=1, cores=None)
