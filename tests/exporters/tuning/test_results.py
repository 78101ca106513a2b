"""The chooser, fed with times that were made up: what is slower, or not surely faster, is never chosen."""

from __future__ import annotations

import json

import pytest

from edgekron.exporters.tuning.candidates import FormCandidate
from edgekron.exporters.tuning.outcome import WholeNetwork
from edgekron.exporters.tuning.results import DENSE, Result, Trial, choose
from edgekron.runtimes.statistics import Interval


def trial(ratio: float, low: float, *, order=(0, 1), forms=("grouped", "mix"), rounds: int = 16) -> Trial:
    return Trial(FormCandidate(order, forms), 1e-3 / ratio, Interval(ratio, low, 2 * ratio - low), rounds)


def result(*trials: Trial) -> Result:
    return Result(1e-3, trials)


FAST, FASTER = trial(2.0, 1.9), trial(2.1, 1.8, forms=("fold", "mix"))
SLOW, DOUBTFUL = trial(0.8, 0.7), trial(1.3, 0.99)
UNTRIED = trial(5.0, 4.0, rounds=4)


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ((FAST,), FAST),
        ((FAST, FASTER), FASTER),
        ((SLOW,), None),
        ((DOUBTFUL,), None),
        ((trial(1.0, 1.0),), None),
        ((SLOW, DOUBTFUL), None),
        ((DOUBTFUL, trial(1.2, 1.1)), trial(1.2, 1.1)),
        # What was not in the final was only lucky in the first rounds.
        ((UNTRIED, FAST), FAST),
        ((UNTRIED, SLOW), None),
        ((), None),
    ],
)
def test_the_fastest_real_gain_is_chosen(trials, expected):
    choice = choose({"onnx": result(*trials)}, (0, 1))
    assert choice.trials == {"onnx": expected}
    assert choice.forms == {"onnx": expected.candidate.forms if expected else DENSE}
    assert choice.dense == (expected is None)
    assert choice.order == (0, 1)


def test_two_runtimes_share_the_order_that_gains_most():
    onnx = result(trial(3.0, 2.9), trial(2.5, 2.4, order=(1, 0)))
    tflite = result(trial(1.1, 1.05), trial(2.0, 1.9, order=(1, 0)))
    choice = choose({"onnx": onnx, "tflite": tflite}, (0, 1))
    assert choice.order == (1, 0)
    assert {target: t.ratio.value for target, t in choice.trials.items()} == {"onnx": 2.5, "tflite": 2.0}
    assert choose({"onnx": onnx}, (1, 0)).order == (0, 1)


def test_one_runtime_may_gain_where_the_other_does_not():
    choice = choose({"onnx": result(SLOW), "tflite": result(FAST)}, (0, 1))
    assert choice.forms == {"onnx": DENSE, "tflite": ("grouped", "mix")}
    assert not choice.dense


def test_json_there_and_back():
    one = result(FAST, SLOW)
    again = Result.from_json(json.loads(json.dumps(one.to_json())))
    assert [t.candidate for t in again.trials] == [t.candidate for t in one.trials]
    assert again.trials[0].seconds == pytest.approx(one.trials[0].seconds)
    whole = WholeNetwork(2e-3, {"tuned": Interval(2.0, 1.9, 2.1)})
    assert WholeNetwork.from_json(json.loads(json.dumps(whole.to_json()))) == whole


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({"tuned": (2.0, 1.9)}, "tuned"),
        ({"tuned": (0.9, 0.8)}, None),
        ({"tuned": (1.1, 0.9)}, None),
        # Another variant must be faster than the estimate of the first, not only its own estimate.
        ({"tuned": (2.0, 1.9), "plain": (2.1, 1.95)}, "tuned"),
        ({"tuned": (2.0, 1.9), "plain": (2.2, 2.1), "present": (2.3, 2.15)}, "plain"),
        ({"tuned": (0.9, 0.8), "present": (1.2, 1.1)}, "present"),
        ({}, None),
    ],
)
def test_the_network_has_the_last_word(ratios, expected):
    intervals = {name: Interval(value, low, 2 * value - low) for name, (value, low) in ratios.items()}
    assert WholeNetwork(1e-3, intervals).fastest == expected
