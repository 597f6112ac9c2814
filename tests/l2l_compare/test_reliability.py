"""Figures of several runs: closed forms, coverage, and what a resampling may and may not do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_compare import reliability

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def test_dispersion_across_runs_is_per_step():
    curves = [[0, 0], [1, 10], [2, 20], [3, 30], [4, 40]]
    assert reliability.dispersion_across_runs(curves) == pytest.approx([2.0, 20.0])


def test_risk_across_runs_is_the_worst_of_few_runs():
    assert reliability.risk_across_runs([10.0, 2.0, 8.0]) == 2.0


def test_interquartile_mean_drops_a_quarter_at_each_end():
    assert reliability.interquartile_mean([0, 1, 2, 100]) == pytest.approx(1.5)
    assert reliability.interquartile_mean([-50, 1, 2, 3, 900]) == pytest.approx(2.0)
    assert reliability.interquartile_mean([4.0, 6.0]) == pytest.approx(5.0)
    assert reliability.interquartile_mean([0, 1, 1, 3, 9, 100]) == pytest.approx(3.5)  # one of six at each end
    by_column = reliability.interquartile_mean([[0, 0], [1, 2], [2, 4], [100, 6]], axis=0)
    assert by_column == pytest.approx([1.5, 3.0])


def test_interquartile_mean_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        reliability.interquartile_mean([1.0, math.nan, 2.0, 3.0])


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_interquartile_mean_lies_within_and_has_no_order(values):
    mean = reliability.interquartile_mean(values)
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    assert close(reliability.interquartile_mean(values[::-1]), mean)


def test_bootstrap_of_equal_values_has_no_width():
    assert reliability.bootstrap_interval({"a": [2.0] * 4, "b": [2.0] * 3}, np.mean) == (2.0, 2.0)


def test_bootstrap_interval_of_a_mean_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(size=400)
    low, high = reliability.bootstrap_interval([values], np.mean)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)


def test_bootstrap_is_stratified():
    # Each group is constant. Within groups there is nothing to resample; across groups the mean would vary widely.
    low, high = reliability.bootstrap_interval({"easy": [0.0] * 5, "hard": [100.0] * 5}, np.mean)
    assert low == high == 50.0


def test_bootstrap_is_seeded_and_keeps_runs_whole():
    curves = np.random.default_rng(0).normal(size=(5, 7))
    first = reliability.bootstrap_interval([curves], lambda drawn: drawn.mean(axis=0), n=200, seed=3)
    again = reliability.bootstrap_interval([curves], lambda drawn: drawn.mean(axis=0), n=200, seed=3)
    assert np.array_equal(first, again)
    other = reliability.bootstrap_interval([curves], lambda drawn: drawn.mean(axis=0), n=200, seed=4)
    assert not np.array_equal(first, other)
    half = reliability.bootstrap_interval([curves], lambda drawn: drawn.mean(axis=0), n=200, seed=3, level=0.5)
    assert (half[1] - half[0] < first[1] - first[0]).all()
    assert first[0].shape == (7,)
    assert (first[0] <= curves.mean(axis=0)).all()
    assert (curves.mean(axis=0) <= first[1]).all()
    # A column that is twice another has twice its interval, for both are drawn together.
    doubled = np.column_stack([curves[:, 0], 2 * curves[:, 0]])
    low, high = reliability.bootstrap_interval([doubled], lambda drawn: drawn.mean(axis=0), n=200, seed=3)
    assert (low[1], high[1]) == (2 * low[0], 2 * high[0])


@settings(max_examples=20)
@given(st.lists(st.lists(FINITE, min_size=1, max_size=6), min_size=1, max_size=4))
def test_bootstrap_interval_stays_within_the_values(groups):
    low, high = reliability.bootstrap_interval(groups, n=50)
    values = [value for group in groups for value in group]
    assert min(values) - 1e-6 <= low <= high <= max(values) + 1e-6


def test_bootstrap_refuses_an_empty_group():
    with pytest.raises(ValueError, match="at least one"):
        reliability.bootstrap_interval({"a": [1.0], "b": []})
