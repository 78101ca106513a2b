"""Verdicts: kept or broken only beyond the interval, everything else inconclusive with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.check import Baseline, Outcome, Verdict, check, read_budget
from edgekron.runtimes.check.fingerprint import identity
from edgekron.runtimes.check.sampling import Instruments

from .conftest import FACTS, Machine

Write = Callable[..., Path]


def run(path: Path, machine: Machine, **options: Any) -> Outcome:
    """A check on a machine where every block takes a tenth of a second."""
    instruments = Instruments(machine.measure, lambda: 0.1 * machine.blocks)
    return check(read_budget(path), machine, instruments=instruments, **options)


def verdict(outcome: Outcome) -> tuple[str, str]:
    (judgement,) = outcome.models[0].judgements
    return judgement.verdict, judgement.reason


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ('latency_median = "1.2 ms"', "pass"),
        ('latency_median = "0.9 ms"', "fail"),
        ('latency_p95 = "1.2 ms"', "pass"),
        ('latency_p95 = "0.9 ms"', "fail"),
        ("latency_vs_reference = 0.55", "pass"),
        ("latency_vs_reference = 0.45", "fail"),
        ('file_size = "1 kB"', "pass"),
        ('file_size = "999 B"', "fail"),
        ('memory_runtime = "50 MB"', "pass"),
        ('memory_loaded = "59 MB"', "fail"),
        ('memory_peak = "70 MB"', "pass"),
        ('memory_steady = "64.9 MB"', "fail"),
        ('top1 = "94 %"', "pass"),
        ('top1 = "94.01 %"', "fail"),
    ],
)
def test_limits_are_kept_or_broken(limit: str, expected: str, budget_file: Write) -> None:
    machine = Machine(latency={"dense.onnx": 2e-3})
    outcome = run(budget_file(limit), machine, top1=lambda _file, data: 0.94 if data == "digits" else 0.0)
    assert verdict(outcome) == (expected, "")
    assert outcome.exit_code == {"pass": 0, "fail": 1}[expected]
    assert outcome.models[0].attempts == (1 if machine.blocks else 0)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ('arena = "256 KiB"', "pass"),
        ('arena = "255 KiB"', "fail"),
        ('arena_micro = "1 MB"', "inconclusive"),
        ("not_delegated = 3", "pass"),
        ("not_delegated = 2", "fail"),
    ],
)
def test_what_a_tflite_runtime_tells(limit: str, expected: str, budget_file: Write) -> None:
    runtime = {"runtime": "litert", "version": "1", "not_delegated": ["CUSTOM", "MEAN", "MEAN"]}
    machine = Machine(arena={"arena": 2**18, "arena_micro": None}, runtime=runtime)
    assert verdict(run(budget_file(limit, file="model.tflite"), machine))[0] == expected
    assert machine.blocks == (2 if expected == "inconclusive" else 1) or expected == "inconclusive"


def test_a_limit_inside_the_interval_is_inconclusive_after_every_attempt(budget_file: Write) -> None:
    path = budget_file('latency_median = "1 ms"')
    path.write_text(path.read_text().replace("[measure]", "[measure]\nattempts = 3"))
    outcome = run(path, Machine(scatter=0.3))
    assert verdict(outcome)[0] == "inconclusive"
    assert "too noisy" in verdict(outcome)[1]
    assert outcome.models[0].attempts == 3
    assert len(outcome.models[0].blocks) == 20
    assert outcome.exit_code == 3


def test_too_little_time_is_said(budget_file: Write) -> None:
    path = budget_file('latency_median = "1 ms"')
    path.write_text(path.read_text().replace("2 s", "150 ms"))
    said = "only 2 of 6 measurements fitted into 150 ms; raise time in [measure]"
    assert verdict(run(path, Machine())) == ("inconclusive", said)


def test_a_throttled_board_is_measured_again(budget_file: Write) -> None:
    path = budget_file('latency_median = "9 ms"\nfile_size = "9 kB"')
    outcome = run(path, Machine(spoilt=lambda _index: ("the board was throttled",)))
    assert [j.verdict for j in outcome.models[0].judgements] == ["inconclusive", "pass"]
    assert outcome.models[0].judgements[0].reason == "the board was throttled"
    assert (outcome.models[0].attempts, outcome.verdict) == (2, Verdict.INCONCLUSIVE)
    cooling = Machine(spoilt=lambda index: ("the board was throttled",) if index < 3 else ())
    cooled = run(budget_file('latency_median = "9 ms"'), cooling)
    assert cooled.verdict is Verdict.PASS
    assert cooled.models[0].notes == ("measurements were left out: the board was throttled",)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ('latency_median = "0.9 ms"', "inconclusive"),
        ('latency_median = "1.2 ms"', "pass"),
        ("latency_vs_reference = 0.45", "fail"),
        ('memory_peak = "1 MB"', "fail"),
    ],
)
def test_a_busy_machine_fails_no_absolute_time(limit: str, expected: str, budget_file: Write) -> None:
    machine = Machine(latency={"dense.onnx": 2e-3}, busy="others were at work")
    said = verdict(run(budget_file(limit), machine))
    assert said == (expected, "too slow, but others were at work" if expected == "inconclusive" else "")


def recorded(path: Path, machine: Machine) -> Baseline:
    outcome = run(path, machine, record=True)
    entry = outcome.models[0].entry
    assert entry is not None
    assert outcome.models[0].judgements == ()
    return Baseline(path, {}).with_entries(identity(outcome.facts), machine.name, {"net": entry})


def test_a_baseline_is_kept_by_the_same_and_broken_by_a_slower_file(budget_file: Write) -> None:
    path = budget_file("latency_vs_baseline = 1.05")
    baseline = recorded(path, Machine(seed=1))
    for latency, expected in [(1e-3, "pass"), (1.2e-3, "fail")]:
        machine = Machine(latency={"model.onnx": latency}, seed=2)
        assert verdict(run(path, machine, baseline=baseline)) == (expected, "")


def test_another_runtime_than_the_baselines_is_noted(budget_file: Write) -> None:
    path = budget_file("latency_vs_baseline = 1.05")
    outcome = run(path, Machine(runtime={"runtime": "abacus", "version": "4.0"}), baseline=recorded(path, Machine()))
    assert outcome.verdict is Verdict.PASS
    assert outcome.models[0].notes == ("the baseline was measured in abacus 3.0, this is abacus 4.0",)


def test_another_machines_baseline_is_no_baseline(budget_file: Write) -> None:
    path = budget_file("latency_vs_baseline = 1.05")
    baseline = recorded(path, Machine())
    said = verdict(run(path, Machine(facts={**FACTS, "cores": 8}), baseline=baseline))
    assert said[0] == "inconclusive"
    assert "another machine (cores 8, not 4)" in said[1]
    assert verdict(run(path, Machine(), baseline=None))[1].startswith("there is no baseline")


def test_instructions_on_a_device_without_a_clock(budget_file: Write) -> None:
    board = Machine("emulated:pi4", "instruction", instructions={"model.onnx": 12e6, "dense.onnx": 30e6})
    for limit, expected in [
        ('instructions = "12 M"', "pass"),
        ('instructions = "11 M"', "fail"),
        ("instructions_vs_reference = 0.4", "pass"),
        ("instructions_vs_reference = 0.39", "fail"),
        ("instructions_vs_baseline = 1.01", "pass"),
    ]:
        path = budget_file("", f'[models.net.devices."emulated:pi4"]\n{limit}')
        baseline = recorded(path, board) if "baseline" in limit else None
        assert verdict(run(path, board, baseline=baseline))[0] == expected


def test_the_worst_verdict_is_the_outcomes(budget_file: Write) -> None:
    path = budget_file('latency_vs_baseline = 1.0\nfile_size = "1 B"\nlatency_median = "9 ms"')
    outcome = run(path, Machine())
    assert [j.verdict for j in outcome.models[0].judgements] == ["inconclusive", "fail", "pass"]
    assert outcome.verdict is Verdict.FAIL
    assert outcome.models[0].attempts == 1


@pytest.mark.parametrize(
    ("limits", "machine", "words"),
    [
        ('latency_median = "1 ms"', Machine("emulated:pi4", "instruction"), "counts instructions and has no clock"),
        ('memory_peak = "1 MB"', Machine("emulated:pi4", "instruction"), "no memory of its own"),
        ('instructions = "1 M"', Machine(), "which measures time"),
    ],
)
def test_limits_that_a_device_cannot_judge_are_refused(
    limits: str, machine: Machine, words: str, budget_file: Write
) -> None:
    with pytest.raises(RuntimeFailure, match=words):
        run(budget_file(limits), machine)
    assert machine.blocks == 0


def test_a_clock_that_counts_instructions_judges_ratios_alone(budget_file: Write) -> None:
    board = Machine("emulated:pi4:ssh", facts={**FACTS, "clock": "instructions"})
    with pytest.raises(RuntimeFailure, match="latency_median of net cannot be judged on emulated:pi4:ssh, whose clock"):
        run(budget_file('latency_median = "1 ms"'), board)
    assert verdict(run(budget_file("latency_vs_reference = 1.5"), board)) == ("pass", "")


def test_a_device_without_any_limit_is_refused(budget_file: Write) -> None:
    path = budget_file("", '[models.net.devices."ssh:pi@board"]\nlatency_median = "9 ms"')
    with pytest.raises(RuntimeFailure, match="net has no limit on local; it has some on ssh:pi@board"):
        run(path, Machine())


def test_missing_files_are_refused_before_measuring(budget_file: Write) -> None:
    path = budget_file("latency_vs_reference = 1.0")
    (path.parent / "dense.onnx").unlink()
    with pytest.raises(RuntimeFailure, match=r"dense\.onnx of net does not exist"):
        run(path, Machine())
    with pytest.raises(RuntimeFailure, match=r"none\.onnx"):
        run(budget_file('file_size = "1 kB"', file="none.onnx"), Machine())
