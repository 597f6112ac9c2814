"""Figures of one curve: values worked out by hand, then properties that hold for every curve."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2l_experiment import stability

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
CURVE = st.lists(FINITE, min_size=2, max_size=40).map(np.array)
ALPHA = st.floats(0.01, 1.0)


def close(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-6)


def test_cvar_is_the_mean_of_the_worst_values():
    assert stability.cvar([5, 1, 4, 2, 3, 6, 7, 8, 9, 10], alpha=0.2) == pytest.approx((1 + 2) / 2)
    # 0.25 · 10 = 2.5 values: 1, 2 and half of 3.
    assert stability.cvar(range(1, 11), alpha=0.25) == pytest.approx((1 + 2 + 1.5) / 2.5)
    assert stability.cvar([3.0, -1.0, 2.0], alpha=0.05) == -1.0


def test_drawdown_and_risks():
    curve = [1.0, 4.0, 2.0, 5.0, 0.0]
    assert stability.drawdown(curve).tolist() == [0.0, 0.0, -2.0, 0.0, -5.0]
    assert stability.long_term_risk(curve) == -5.0
    assert stability.long_term_risk(curve, alpha=0.4) == pytest.approx(-3.5)
    assert stability.short_term_risk([0, 3, 1, 2]) == -2.0


def test_dispersion_across_time_takes_a_trend_out():
    assert stability.dispersion_across_time([0, 10, 20, 30, 40]) == 0.0
    # Differences 0, 1, 2, 3, 4: quartiles 1 and 3.
    assert stability.dispersion_across_time([0, 0, 1, 3, 6, 10]) == pytest.approx(2.0)


def test_largest_fall_is_from_the_peak_before_to_the_trough_after():
    fall = stability.largest_fall([1064.0, 868.0, 3780.0, 3500.0, 4000.0])
    assert fall == pytest.approx((280.0, 280.0 / 3780.0))
    assert stability.largest_fall([-5.0, -10.0]) == (5.0, 1.0)
    assert stability.largest_fall([-2.0, -1.0, 3.0]) == (0.0, 0.0)
    assert stability.largest_fall([0.0, -1.0]) == pytest.approx((1.0, math.nan), nan_ok=True)


def test_a_dip_before_anything_was_learned_is_no_late_fall():
    curve = [-50.0, -590.0, 100.0, 3000.0, 2900.0, 6000.0, 5970.0]  # halfway to the best is 2975
    assert stability.largest_fall(curve).absolute == 540
    assert stability.late_fall(curve) == 100
    for never_rose in ([4.0, 1.0], [-58.0, -1200.0, -50.0, -900.0]):
        assert math.isnan(stability.late_fall(never_rose))
    assert stability.late_fall([0.0, 1.0, 2.0]) == 0


def test_a_level_is_first_reached_where_the_curve_is_measured_at_it_or_above():
    assert stability.first_reached([10, 0, 20, 30], [4.0, 1.0, 6.0, 5.0], 5) == 20
    assert stability.first_reached([0, 10], [5.0, 1.0], 5) == 0
    assert math.isnan(stability.first_reached([0, 10], [1.0, 4.9], 5))


def test_near_the_expert_is_nine_tenths_of_its_return_or_of_the_way_to_it():
    assert stability.near_expert_return(200.0, 50.0) == 180
    assert stability.near_expert_return(200.0, None) == 180
    assert stability.near_expert_return(-100.0, -1100.0) == -200
    assert stability.near_expert_return(0.0, -10.0) == -1
    for expert, random in ((-100.0, None), (-100.0, -50.0), (None, 1.0), (math.nan, 1.0)):
        assert stability.near_expert_return(expert, random) is None


def test_on_grid_interpolates_and_does_not_extrapolate():
    values = stability.on_grid([20, 10], [4.0, 2.0], [5, 10, 15, 20, 25])
    assert values.tolist() == pytest.approx([math.nan, 2.0, 3.0, 4.0, math.nan], nan_ok=True)
    assert stability.on_grid([0, 10, 10], [0.0, 1.0, 7.0], [10]).tolist() == [7.0]  # the later value of a step counts


def test_summary_of_one_run():
    figures = stability.summarise([0, 10, 20, 30, 40], [0.0, 4.0, 2.0, 5.0, 5.0])
    expected = {"final": 5.0, "best": 5.0, "average": 3.2, "drawdown_cvar": -2.0, "short_term_risk": -2.0}
    expected |= {"largest_fall": 2.0, "largest_fall_relative": 0.5, "late_fall": 2.0}
    expected["dispersion"] = 3.75  # differences 4, -2, 3, 0: quartiles -0.5 and 3.25
    assert figures == pytest.approx(expected)
    alone = stability.summarise([7], [3.0])
    assert alone["final"] == alone["best"] == 3.0
    assert alone["short_term_risk"] == alone["largest_fall"] == 0.0
    assert np.isnan(alone["dispersion"]), "0 would be perfectly steady"


def test_summary_on_a_given_grid_counts_what_the_run_reached():
    figures = stability.summarise([0, 10, 20], [0.0, 4.0, 2.0], grid=[0, 10, 20, 30, 40])
    assert figures["short_term_risk"] == -2.0
    with pytest.raises(ValueError, match="reaches no step"):
        stability.summarise([0, 10], [0.0, 1.0], grid=[50, 60])


def test_risks_are_taken_on_an_even_grid_whatever_was_logged():
    """A slow fall, logged once, counts as long as it takes, and a curve logged densely somewhere not more for it."""
    dense = np.linspace(0, 10, 200)
    steps, values = [*dense, 1000.0], [*np.zeros(200), -100.0]
    figures = stability.summarise(steps, values)
    grid = np.linspace(0, 1000, 100)
    assert figures["drawdown_cvar"] == pytest.approx(np.interp(grid, steps, values)[-5:].mean())
    assert figures["short_term_risk"] == pytest.approx(-100 / 990 * 1000 / 99)
    assert figures["dispersion"] == pytest.approx(0.0, abs=1e-9)  # all but the first difference are alike


def test_a_curve_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="value 1 is not finite"):
        stability.summarise([0, 1], [0.0, math.inf])
    with pytest.raises(ValueError, match="as many steps"):
        stability.on_grid([0, 1], [0.0], [0])


def test_the_stability_of_a_run_that_goes_on_by_hand():
    running = stability.RunningStability(block=2, window=5)
    assert running.add([1.0]) == {}
    assert running.add([3.0, math.nan]) == {"drawdown": 0.0}
    assert running.add([7.0]) == {"drawdown": 0.0, "spread": 3.0}  # levels 2, 5; quartiles of 1, 3, 7: 2 and 5
    found = running.add([1.0, 1.0])  # levels 2, 5, 4, 1
    assert found == pytest.approx({"drawdown": -4.0, "spread": 2.0, "worst_change": -4.0})
    assert running.add([9.0, 9.0])["drawdown"] == 0.0  # in the window 7, 1, 1, 9, 9 the level goes 4, 1, 5, 9
    assert running.add([])["worst_change"] == 1.0


@given(CURVE)
def test_running_stability_is_that_of_the_whole_curve_also_across_a_state(curve):
    running, half = stability.RunningStability(block=1, window=1000), len(curve) // 2
    running.add(curve[:half])
    again = stability.RunningStability(block=1, window=1000)
    again.load_state_dict(running.state_dict())
    found = again.add(curve[half:])
    assert found["drawdown"] == stability.drawdown(curve)[-1]
    assert close(found["worst_change"], np.diff(curve).min())
    assert running.add(curve[half:]) == found


@given(CURVE, ALPHA, ALPHA)
def test_cvar_grows_with_alpha_from_the_minimum_to_the_mean(values, one, other):
    low, high = (stability.cvar(values, alpha) for alpha in sorted((one, other)))
    assert values.min() - 1e-6 <= low <= high + 1e-6 <= values.mean() + 2e-6
    assert close(stability.cvar(values, 1.0), values.mean())


@given(CURVE, st.floats(-1e3, 1e3), st.floats(0.0, 1e2))
def test_risks_scale_with_the_curve_and_do_not_see_its_level(curve, level, scale):
    for figure in (stability.short_term_risk, stability.long_term_risk, stability.dispersion_across_time):
        assert np.isclose(figure(scale * curve + level), scale * figure(curve), rtol=1e-6, atol=1e-4)


@given(CURVE)
def test_largest_fall_is_the_worst_pair(curve):
    worst = max(curve[i] - curve[j] for i in range(len(curve)) for j in range(i, len(curve)))
    assert close(stability.largest_fall(curve).absolute, worst)
    assert close(stability.drawdown(curve).min(), -worst)


@given(CURVE)
def test_on_grid_gives_a_curve_back_on_its_own_steps(curve):
    steps = np.arange(len(curve)) * 2048
    shuffled = np.random.default_rng(0).permutation(len(curve))
    assert np.array_equal(stability.on_grid(steps[shuffled], curve[shuffled], steps), curve)
