"""Rank intervals against textbook tables, scipy's tests, and what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from edgekron.runtimes.ranks import FEWEST, pseudomedian, shift


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(2, count)


@pytest.mark.parametrize("count", [6, 7, 9, 12, 25])
def test_the_interval_holds_exactly_what_the_signed_rank_test_accepts(count: int) -> None:
    x = noise(count, count)
    interval = pseudomedian(list(x))
    step = 1e-9
    for value, accepted in [
        (interval.low + step, True),
        (interval.high - step, True),
        (interval.low - step, False),
        (interval.high + step, False),
    ]:
        p = stats.wilcoxon(x - value, method="exact").pvalue
        assert (p > 0.05) == accepted
    averages = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(x, 2)]
    assert interval.value == pytest.approx(np.median(averages))


@pytest.mark.parametrize(("first", "second"), [(4, 4), (6, 9), (12, 7), (20, 20)])
def test_the_shift_holds_exactly_what_the_mann_whitney_test_accepts(first: int, second: int) -> None:
    x, y = noise(first, first) + 3, noise(second, 99)
    interval = shift(list(x), list(y))
    for value, accepted in [
        (interval.low + 1e-9, True),
        (interval.high - 1e-9, True),
        (interval.low - 1e-9, False),
        (interval.high + 1e-9, False),
    ]:
        assert (stats.mannwhitneyu(x - value, y, method="exact").pvalue > 0.05) == accepted


def test_shift_and_centre_move_with_the_values() -> None:
    x, y = noise(9), noise(8, 1)
    there, back = shift(list(x), list(y)), shift(list(y), list(x))
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low))
    moved = pseudomedian(list(x + 5))
    assert moved.value == pytest.approx(pseudomedian(list(x)).value + 5)


def test_one_wild_value_hardly_moves_the_interval() -> None:
    x = noise(10)
    wild = x.copy()
    wild[np.argmax(wild)] = 1e9
    assert pseudomedian(list(wild)).low == pytest.approx(pseudomedian(list(x)).low)
    assert abs(pseudomedian(list(wild)).value - pseudomedian(list(x)).value) < np.ptp(x)


def test_too_few_values_have_no_interval() -> None:
    assert pseudomedian([1.0] * FEWEST).low == 1.0
    with pytest.raises(ValueError, match="too few"):
        pseudomedian([1.0] * (FEWEST - 1))
    with pytest.raises(ValueError, match="too few"):
        shift([1.0] * 3, [1.0] * 3)


@pytest.mark.parametrize("count", [6, 8, 16])
def test_covers_as_often_as_it_says_where_a_bootstrap_does_not(count: int) -> None:
    random = np.random.default_rng(0)
    ranks = bootstrap = 0
    trials = 400
    for _ in range(trials):
        x = random.normal(size=count)
        interval = pseudomedian(list(x))
        ranks += interval.low <= 0 <= interval.high
        means = x[random.integers(count, size=(300, count))].mean(axis=1)
        bootstrap += np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975)
    assert ranks / trials >= 0.93
    assert ranks > bootstrap
