"""A budget says what it means, or is refused in a sentence that names the key and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekron.runtimes.agent.errors import RuntimeFailure
from edgekron.runtimes.check import KINDS, read_budget
from edgekron.runtimes.check.units import parse, show

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "quantity", "value"),
    [
        ("2.5 ms", "seconds", 2.5e-3),
        ("800us", "seconds", 8e-4),
        ("800 µs", "seconds", 8e-4),
        ("1e3 ns", "seconds", 1e-6),
        ("600 kB", "bytes", 6e5),
        ("256 KiB", "bytes", 2**18),
        ("93.5 %", "fraction", 0.935),
        (0.8, "ratio", 0.8),
        ("80 %", "ratio", 0.8),
        ("1.5 x", "ratio", 1.5),
        (20, "count", 20),
        ("12 M", "count", 12e6),
    ],
)
def test_quantities(text: str | float, quantity: str, value: float) -> None:
    assert parse(text, quantity, "here") == pytest.approx(value)


@pytest.mark.parametrize(
    ("value", "quantity", "words"),
    [
        (2.5, "seconds", "has no unit; use s, ms, us, ns"),
        ("2.5 minutes", "seconds", "no unit 'minutes'"),
        ("600 kb", "bytes", "use B, kB, MB"),
        ("0.93", "fraction", "use %"),
        ("fast", "seconds", "no number"),
        ("-1 ms", "seconds", "no number"),
        ("inf", "ratio", "no number"),
        (float("nan"), "ratio", "no number"),
        (True, "count", "not True"),
        (["1 ms"], "seconds", "such as '2.5 ms'"),
    ],
)
def test_a_quantity_without_sense_is_refused(value: object, quantity: str, words: str) -> None:
    with pytest.raises(RuntimeFailure, match="here") as refused:
        parse(value, quantity, "here")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("value", "quantity", "text"),
    [
        (1.2345e-3, "seconds", "1.234 ms"),
        (2.0, "seconds", "2 s"),
        (3.21e-7, "seconds", "321 ns"),
        (561_847, "bytes", "561.8 kB"),
        (12, "bytes", "12 B"),
        (0.9364, "fraction", "93.64 %"),
        (19_081_472, "count", "19,081,472"),
        (0.98765, "ratio", "0.988"),
    ],
)
def test_quantities_are_shown_in_the_unit_that_suits(value: float, quantity: str, text: str) -> None:
    assert show(value, quantity) == text


def test_every_kind_of_limit_can_be_written(budget_file: Write) -> None:
    examples = {"seconds": '"1 ms"', "bytes": '"1 MB"', "fraction": '"90 %"', "ratio": "1.0", "count": "5"}
    lines = [f"{k.key} = {'{ ADD = 3 }' if k.table else examples[k.quantity]}" for k in KINDS.values()]
    (model,) = read_budget(budget_file("\n".join(lines), file="model.tflite")).models
    assert {limit.kind.key for limit in model.limits_on("anywhere")} == set(KINDS)
    assert next(limit for limit in model.limits if limit.kind.table).key == "operators.ADD"


def test_a_devices_limit_takes_the_place_of_the_general_one(budget_file: Write) -> None:
    more = '[models.net.devices."ssh:pi@board"]\nlatency_median = "9 ms"\noperators = { Conv = 2 }'
    budget = read_budget(budget_file('latency_median = "1 ms"\noperators = { Conv = 1, Add = 0 }', more))
    bounds = {limit.key: limit.bound for limit in budget.models[0].limits_on("ssh:pi@board")}
    assert bounds == {"latency_median": 9e-3, "operators.Conv": 2, "operators.Add": 0}
    assert {limit.bound for limit in budget.models[0].limits_on("local")} == {1e-3, 1, 0}
    assert budget.effort.seconds == 2
    assert (budget.effort.threads, budget.effort.precision, budget.effort.attempts) == (1, 0.01, 2)
    assert budget.models[0].file == budget.path.parent / "model.onnx"


@pytest.mark.parametrize(
    ("limits", "more", "words"),
    [
        (
            'latency_medain = "1 ms"',
            "",
            "unknown key 'latency_medain' in [models.net.limits]; did you mean 'latency_median'",
        ),
        ('arenas = "1 kB"', "", "did you mean 'arena'"),
        ("latency_median = 1", "", "models.net.limits.latency_median = 1 has no unit"),
        ('latency_median = "1 hour"', "", "no unit 'hour'"),
        ("operators = 3", "", "operators must be a table"),
        ("operators = { Conv = 'few' }", "", "models.net.limits.operators.Conv = 'few' is no number"),
        ("", "", "has no limit"),
        ('arena = "1 kB"', "", "is for TFLite files"),
        ('file_size = "1 kB"', "[models.other]\nreference = 'x.onnx'", "names no file"),
        (
            'file_size = "1 kB"',
            "[models.other]\nfile = 'x.onnx'\n[models.other.limits]\ntop1 = '9 %'",
            "top1 in [models.other] needs 'data'",
        ),
        ('file_size = "1 kB"', "[models.other]\nfile = 3", "models.other.file must be words"),
        ('file_size = "1 kB"', "[models.other]\nfiles = 'a'", "did you mean 'file'"),
        ('file_size = "1 kB"', "[measure]\n", "is no TOML file"),
        ('file_size = "1 kB"', "[measures]\n", "did you mean 'measure'"),
        (
            'file_size = "1 kB"',
            "[models.net.devices.'emulated:p4']\ntop1 = '2 %'",
            "'emulated:p4' says no device",
        ),
        (
            'file_size = "1 kB"',
            "[models.net.devices.'shs:pi@host']\ntop1 = '2 %'",
            "'shs:pi@host' says no device",
        ),
    ],
)
def test_a_wrong_budget_is_refused_by_key(limits: str, more: str, words: str, budget_file: Write) -> None:
    path = budget_file(limits, more)
    with pytest.raises(RuntimeFailure) as refused:
        read_budget(path)
    assert str(path) in str(refused.value)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path: Path, budget_file: Write) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be read"):
        read_budget(tmp_path / "none.toml")
    other = tmp_path / "other.toml"
    for text, words in [
        ("format = 2", "format is 2"),
        ("format = 1", "names no model"),
        ("format = 1\nmodels = 3", "models must be a table"),
        ("format = 1\n[measure]\nthreads = 0\n[models.a]\nfile = 'a.onnx'", "above 0"),
        ("format = 1\n[measure]\nthreads = 1.5\n[models.a]\nfile = 'a.onnx'", "threads must be a whole number"),
        ("\0", "no TOML"),
    ]:
        other.write_text(text)
        with pytest.raises(RuntimeFailure, match=words):
            read_budget(other)
    with pytest.raises(RuntimeFailure, match="no model 'nets'; did you mean 'net'"):
        read_budget(budget_file('file_size = "1 kB"')).select(["nets"])
