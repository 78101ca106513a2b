"""One block, measured for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekron.runtimes import Measuring, bench
from edgekron.runtimes.check import blocks
from edgekron.runtimes.check.blocks import MeasuredBlock, counts_instructions, measure_block
from edgekron.runtimes.devices import Device, open_device


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with closing(open_device("local")) as local:
        yield local


@pytest.fixture(scope="module")
def block(device: Device, write_tflite: Callable[..., Path]) -> MeasuredBlock:
    """A file, and one of sixteen times its work, as the reference."""
    little, large = (write_tflite(np.ones((size, size, 3, 3), np.float32), (16, 16)) for size in (8, 32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_SECONDS", 0.2)
        # An odd block: the processes start in the other order, the runs come in ours.
        return measure_block([little, large], device, 1, 1, arena=True)


def test_runs_are_in_the_order_of_the_files(block: MeasuredBlock) -> None:
    little, large = block.runs
    assert len(little.rounds) == len(large.rounds) > 1
    assert 0 < little.median <= little.p95
    assert block.log_ratio < 0
    assert large.memory["file"] > little.memory["file"]


def test_every_other_block_mirrors_the_one_before(
    device: Device, write_tflite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[Path], int]] = []

    def spy(files: list[Path], measuring: Measuring, **options: Any) -> Any:
        asked.append((list(files), measuring.seed))
        return bench(files, measuring, **options)

    monkeypatch.setattr(blocks, "bench", spy)
    monkeypatch.setattr(blocks, "_SECONDS", 0.02)
    files = [write_tflite(np.ones((size, size, 3, 3), np.float32), (16, 16)) for size in (8, 16)]
    for index in range(4):
        measure_block(files, device, 1, index)
    assert asked == [(files, 0), (files[::-1], 0), (files, 1), (files[::-1], 1)]


def test_what_the_runtime_tells_is_kept(block: MeasuredBlock) -> None:
    run = block.runs[0]
    assert run.runtime["runtime"] == "litert"
    assert run.not_delegated == 0
    # The input and the map: 8 channels of 16 x 16 floats each.
    assert run.arena["arena"] is not None
    assert run.arena["arena"] >= 2 * 8 * 16 * 16 * 4
    assert all(run.memory[name] for name in ("runtime", "loaded", "peak", "steady"))
    assert block.facts["cores"]


def test_this_machine_has_a_clock(device: Device) -> None:
    assert not counts_instructions(device)


def test_a_files_name_spoils_nothing(
    device: Device, write_tflite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "throttled quota, swapped, busy before.tflite"
    file.write_bytes(write_tflite(np.ones((4, 3, 3, 3), np.float32), (8, 8)).read_bytes())
    report = bench([file], Measuring(rounds=1, seconds=0.02), device=device)
    report = replace(report, environment={}, before={}, after={}, during=())
    sentence = f"{file} had not settled after 9 warm-up inferences"
    for warnings, spoilt in [((sentence,), ()), ((sentence, swap := "memory was swapped in (3 times)"), (swap,))]:
        states = {"before": {"swapped_in": 1}, "after": {"swapped_in": 4}} if spoilt else {}
        made = replace(report, warnings=warnings, **states)
        monkeypatch.setattr(blocks, "bench", lambda *_, made=made, **__: made)
        monkeypatch.setattr(blocks, "_busy", lambda: None)
        block = measure_block([file], device, 1, 0)
        assert (block.spoilt, block.notes, block.busy) == (spoilt, (sentence,), None)
