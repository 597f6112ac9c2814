"""Figures of several runs: closed forms, coverage, and what a resampling may and may not do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l_compare import reliability
from l2l_compare.reliability import bootstrap_interval, interquartile_mean

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def test_spread_and_risk_over_runs():
    curves = [[0, 0], [1, 10], [2, 20], [3, 30], [4, 40]]
    assert reliability.dispersion_across_runs(curves) == pytest.approx([2.0, 20.0])
    assert reliability.risk_across_runs([10.0, 2.0, 8.0]) == 2.0
    assert reliability.risk_across_runs(range(40)) == 0.5  # the mean of the worst two of forty
    assert reliability.risk_across_runs([[3, 1], [2, 5]], axis=1).tolist() == [1, 2]


def test_interquartile_mean_drops_a_quarter_at_each_end():
    assert interquartile_mean([0, 1, 2, 100]) == pytest.approx(1.5)
    assert interquartile_mean([-50, 1, 2, 3, 900]) == pytest.approx(2.0)
    assert interquartile_mean([4.0, 6.0]) == pytest.approx(5.0)
    assert interquartile_mean([0, 1, 1, 3, 9, 100]) == pytest.approx(3.5)  # one of six at each end
    assert interquartile_mean([[0, 0], [1, 2], [2, 4], [100, 6]], axis=0) == pytest.approx([1.5, 3.0])
    for values in ([], [1.0, math.nan, 2.0, 3.0]):
        with pytest.raises(ValueError, match="NaN"):
            interquartile_mean(values)


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_interquartile_mean_lies_within_and_has_no_order(values):
    mean = interquartile_mean(values)
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    assert interquartile_mean(values[::-1]) == pytest.approx(mean, rel=1e-9, abs=1e-6)


def test_a_bootstrap_is_that_of_draws_by_hand():
    values, generator = np.random.default_rng(1).normal(size=7), np.random.default_rng(3)
    drawn = [interquartile_mean(values[generator.integers(7, size=7)]) for _ in range(500)]
    expected = np.quantile(drawn, [0.05, 0.95])
    assert bootstrap_interval([values], n=500, seed=3, level=0.9) == pytest.approx(expected, abs=1e-12)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    samples = [generator.normal(size=40) for _ in range(300)]
    intervals = [bootstrap_interval([some], np.mean, n=400, level=0.8) for some in samples]
    assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(0.8, abs=0.06)


def test_bootstrap_is_stratified():
    # Each group is constant. Within groups there is nothing to resample; across groups the mean would vary widely.
    assert bootstrap_interval([[0.0] * 5, [100.0] * 10], np.mean) == pytest.approx((200 / 3, 200 / 3))
    # Of groups with a spread of their own the mean's variance is the sum of theirs, weighted by their shares.
    groups = [np.random.default_rng(n).normal(scale=n, size=50 * n) for n in (1, 2, 4)]
    half = 1.96 * sum((len(some) / 350) ** 2 * some.var() / len(some) for some in groups) ** 0.5
    low, high = bootstrap_interval(groups, np.mean)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)


def test_bootstrap_keeps_runs_whole():
    """A column that is twice another has twice its interval, for both are drawn together."""
    column = np.random.default_rng(0).normal(size=5)
    low, high = bootstrap_interval([np.column_stack([column, 2 * column])], np.mean, n=300)
    assert (low[1], high[1]) == pytest.approx((2 * low[0], 2 * high[0]))


def test_bootstrap_refuses_a_group_that_cannot_be_resampled():
    for groups in ([], [[1.0, 2.0], [3.0]]):
        with pytest.raises(ValueError, match="at least two"):
            bootstrap_interval(groups)


def test_interval_of_a_mean_is_students():
    # Two degrees of freedom: the 97.5 % point is 4.303; the mean of three has standard error 3/√3.
    assert reliability.mean_interval([60.0, 63.0, 66.0]) == pytest.approx(4.303 * 3 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1], 0.5), ([0, 2], [1, 2], 0.375)],
)
def test_probability_of_improvement_by_counting(left, right, expected):
    assert reliability.probability_of_improvement([(left, right)]) == (expected, None, None)
    thrice = reliability.probability_of_improvement([(3 * left, 3 * right)])
    assert thrice.value == expected
    assert thrice.low <= expected <= thrice.high


def test_probability_of_improvement_over_tasks_is_their_mean_with_draws_within_each():
    tasks = [([1.0, 3.0, 5.0, 7.0], [0.0, 2.0, 4.0]), ([10.0, 30.0, 50.0], [20.0, 40.0, 60.0, 80.0])]
    found = reliability.probability_of_improvement(tasks)
    assert found.value == pytest.approx((9 / 12 + 3 / 12) / 2)
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(4000):
        pairs = [[generator.choice(side, len(side)) for side in pair] for pair in tasks]
        drawn.append(np.mean([np.mean(a[:, None] > b) + np.mean(a[:, None] == b) / 2 for a, b in pairs]))
    assert found[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.05)
