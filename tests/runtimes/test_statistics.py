from __future__ import annotations

import numpy as np
import pytest

from edgekron.runtimes.statistics import Interval, median_interval, speedup, summary


def rounds(random: np.random.Generator, level: float, drift: np.ndarray, count: int = 30) -> list[np.ndarray]:
    """Skewed noise, as latencies have, around a level that drifts from round to round."""
    return [level * d * (1 + 0.05 * random.exponential(size=count)) for d in drift]


def test_summary_of_known_samples() -> None:
    s = summary([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (s.count, s.median, s.minimum) == (5, 3.0, 1.0)
    assert s.mad == pytest.approx(1.4826)
    assert (s.p5, s.p95) == (pytest.approx(1.2), pytest.approx(4.8))


def test_mad_estimates_the_deviation_of_normal_noise_and_ignores_outliers() -> None:
    x = np.random.default_rng(0).normal(10, 2, 20000)
    x[:200] = 1e6
    assert summary(x).mad == pytest.approx(2, rel=0.05)
    assert summary(x).median == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("ratio", [1.0, 1.03])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(ratio: float) -> None:
    random = np.random.default_rng(7)
    covered, trials = 0, 300
    for _ in range(trials):
        drift = random.lognormal(sigma=0.3, size=20)  # common to both files: must cancel
        a, b = rounds(random, ratio, drift), rounds(random, 1.0, drift)
        interval = speedup(a, b, resamples=500)
        covered += interval.low <= ratio <= interval.high
    assert covered / trials >= 0.90


def test_drift_common_to_both_files_does_not_widen_the_interval() -> None:
    random = np.random.default_rng(3)
    drift = random.lognormal(sigma=1.0, size=20)
    interval = speedup(rounds(random, 2.0, drift), rounds(random, 1.0, drift))
    assert interval.low > 1.9
    assert interval.high < 2.1


def test_a_file_against_itself_is_exactly_one() -> None:
    samples = rounds(np.random.default_rng(0), 1.0, np.ones(10))
    interval = speedup(samples, samples)
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)


def test_the_estimate_is_reciprocal_and_deterministic() -> None:
    random = np.random.default_rng(5)
    a, b = rounds(random, 1.7, np.ones(12)), rounds(random, 1.0, np.ones(12))
    there, back = speedup(a, b), speedup(b, a)
    assert there.value * back.value == pytest.approx(1, abs=1e-12)
    assert there.low * back.high == pytest.approx(1, abs=1e-12)
    assert speedup(a, b) == there
    assert speedup(a, b, seed=1).value == there.value


def test_a_wider_level_contains_a_narrower_one() -> None:
    random = np.random.default_rng(5)
    a, b = rounds(random, 1.7, np.ones(12)), rounds(random, 1.0, np.ones(12))
    narrow, wide = speedup(a, b, level=0.5), speedup(a, b, level=0.99)
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([[1.0]], [[1.0], [1.0]]), ([[1.0], []], [[1.0], [1.0]]), ([[0.0]], [[1.0]])]
)
def test_rounds_that_do_not_pair_up_are_refused(a: list[list[float]], b: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="measure"):
        speedup(a, b)
    with pytest.raises(ValueError, match="no sample"):
        summary([])


def test_the_interval_of_a_median_holds_it_and_narrows() -> None:
    random = np.random.default_rng(3)
    few, many = (median_interval(random.normal(2.0, 0.1, (n, 30)).tolist()) for n in (8, 200))
    for interval in (few, many):
        assert interval.low <= interval.value <= interval.high
        assert interval.low <= 2.0 <= interval.high
    assert many.high - many.low < few.high - few.low
    assert median_interval([[3.0, 1.0, 2.0]]) == Interval(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="no sample"):
        median_interval([[1.0], []])
