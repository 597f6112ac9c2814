"""Comparison of runs: what is read, and the figures by hand."""

from dataclasses import replace

import numpy as np
import pytest

from l2l_compare import comparison, reliability
from l2l_compare.curves import read
from l2l_experiment.errors import UserError
from tests.l2l_compare.made_up import curve, our_run, ragged


def test_runs_of_different_lengths_are_compared_where_both_are(tmp_path):
    short, long = curve([0, 1, 2], "short", "a"), curve([0, 1, 2, 3, 9], "long", "b")
    content = comparison.table(comparison.grouped([short, long]))
    assert content["tasks"] == {"": {"steps": [0, 20], "points": 3, "ends_first": "short"}}
    assert content["improvement"] == {}
    assert content["groups"]["b"]["figures"]["final"][0] == 2
    assert "| – |" in comparison.markdown(content)
    assert comparison.markdown({"tag": "robust/pgd10"} | content).startswith("Figure: `robust/pgd10`, our own attack")
    assert comparison.markdown({"tag": "train_classifier/loss"} | content).startswith(
        "Figure: `train_classifier/loss`, of which more is "
    )


def test_reliability_by_hand():
    curves = [curve([0, 10, 4, 12], "a"), curve([0, 20, 20, 20], "b")]
    grid = np.array([0.0, 10.0, 20.0, 30.0])
    found = comparison.reliability(curves, grid)
    assert found["final"].value == 16
    assert found["largest_fall"].value == 3  # 6 and 0
    assert found["risk_across_runs"].value == 12
    # Two runs: the interquartile range is half of their distance, here 0, 10, 16 and 8.
    assert found["dispersion_across_runs"].value == pytest.approx(np.mean([0, 10, 16, 8]) / 2)


def test_when_runs_first_reach_a_level_is_a_median_in_which_those_that_never_do_come_last():
    timed = [
        replace(curve(values, f"r{i}"), hours=np.array([0.0, 0.1, 0.2, 0.3]))
        for i, values in enumerate(([0, 5, 9, 9], [0, 9, 1, 1], [0, 1, 2, 3]))
    ]
    grid = np.array([0.0, 10.0, 20.0, 30.0])
    found = comparison.reached(timed, grid, 9)
    assert found == {"runs": 2, "steps": 20, "minutes": pytest.approx(12)}  # of steps 10, 20 and never
    assert comparison.reached(timed[1:], grid, 9) == {"runs": 1, "steps": None, "minutes": None}
    assert comparison.reached([curve([0, 5, 9, 9])], grid, 9)["minutes"] is None  # nothing says when
    assert comparison.reached([*timed[:2], curve([0, 5, 9, 9])], grid, 9)["minutes"] is None
    assert comparison.reached(timed, grid[1:], 5)["steps"] == 10  # before the stretch that all runs cover
    assert comparison.reached(timed[:1], grid[:2], 9)["runs"] == 0  # after it has ended


def test_the_level_is_nine_tenths_of_the_demonstrations_or_what_is_asked_for():
    expert = {"expert": {"mean": 10.0}}
    runs = [replace(curve([0, 5, 9, 9], "a"), result=expert), replace(curve([0, 5, 6, 7], "b", "other"), result=expert)]
    content = comparison.table(comparison.grouped(runs))
    assert content["levels"] == {"": 9.0}
    assert "| steps to 90 % of expert | minutes |" in comparison.markdown(content)
    rows = [line for line in comparison.markdown(content).splitlines() if line.startswith(("| g |", "| other |"))]
    assert "| 20 | – |" in rows[0]
    assert "| – (0 of 1 runs) | – |" in rows[1]
    assert "steps to 6" in comparison.terminal_table(comparison.table(comparison.grouped(runs), level=6))
    apart = [runs[0], replace(runs[1], result={"expert": {"mean": 11.0}})]
    assert comparison.table(comparison.grouped(apart))["levels"] == {}
    assert comparison.tasks_with_different_demonstrations(comparison.grouped(apart)) == ["all runs"]
    assert comparison.tasks_with_different_demonstrations(comparison.grouped(runs)) == []


def test_few_runs_have_no_intervals():
    grid, runs = np.array([0.0, 10.0, 20.0, 30.0]), [curve([0, 1, 2, i], f"r{i}") for i in range(3, 24)]
    of = [comparison.reliability(runs[:n], grid) for n in (1, 2, 3, 4, 5, 20, 21)]
    for name, first in (("final", 3), ("dispersion_across_runs", 5), ("risk_across_runs", 21)):
        known = [name in found and found[name].low is not None for found in of]
        assert known == [n >= first for n in (1, 2, 3, 4, 5, 20, 21)], name


def test_the_late_fall_is_of_the_runs_that_rose():
    grid = np.array([0.0, 10.0, 20.0, 30.0])
    rose, sank = curve([0, 10, 4, 12], "a"), curve([0, -50, -1, -60], "b")
    assert comparison.reliability([rose, sank], grid)["late_fall"] == (6.0, None, None)
    assert "late_fall" not in comparison.reliability([sank, sank], grid)


def test_improvement_over_tasks_is_within_each_task():
    """Better by ten on both tasks, whose scales are far apart: pooled, the tasks' distance would be all one saw."""

    first = {("easy", "a"): 5000, ("easy", "b"): 5010, ("hard", "a"): 10, ("hard", "b"): 20}
    curves = [
        replace(curve([0, value + i], f"{task}{group}{i}", group), task=task)
        for (task, group), value in first.items()
        for i in range(3)
    ]
    groups = comparison.grouped(curves)
    assert list(groups) == ["easy: a", "easy: b", "hard: a", "hard: b"]
    content = comparison.table(groups)
    assert content["improvement"]["a over b, mean of 2 tasks"] == [0, 0, 0]
    assert content["improvement"]["hard: a over b"] == [0, 0, 0]
    assert content["groups"]["easy: a"]["figures"]["dispersion_across_runs"][0] <= 1


def test_a_group_that_mixes_settings_says_so(tmp_path):
    runs = [our_run(tmp_path / f"x_s{i}", [1.0, 2.0], {"follower": "l2l", "seed": i, "rate": i % 2}) for i in range(2)]
    groups = comparison.grouped([read(run, by=("follower",)) for run in runs])
    content = comparison.table(groups)
    assert content["groups"]["l2l"]["mixes"] == ["rate"]
    assert "differ in rate" in comparison.markdown(content)


def test_runs_that_would_leave_no_common_stretch_are_taken_out():
    long, other = ragged("long", "g", [0, 10, 40], [1, 2, 3]), ragged("other", "g", [5, 45], [1, 2])
    early, late = ragged("early", "g", [0, 4], [1, 2]), ragged("late", "g", [41, 60], [1, 2])
    assert comparison.overlapping([early, long, late, other]) == ([long, other], [early, late])
    assert comparison.overlapping([long, other]) == ([long, other], [])
    point = ragged("point", "g", [7], [1])
    assert comparison.overlapping([point]) == ([], [point])
    elsewhere = replace(late, task="another")
    assert comparison.overlapping([long, elsewhere]) == ([long, elsewhere], [])
    with pytest.raises(UserError, match="share no stretch"):
        comparison.shared_grid([long, late])


def test_figures_of_runs_that_are_logged_at_different_steps():
    """Every figure is of the stretch that all runs cover, and ends at its last step, whatever a run logged inside."""
    dense = ragged("a", "g", np.arange(10, 200, 20), np.arange(10, 200, 20))  # a line through the origin
    coarse = ragged("b", "g", [0, 100, 200], [0, 100, 0])
    grid = comparison.shared_grid([dense, coarse])
    assert grid.tolist() == [10, 100, 190]  # no finer than the coarse one was measured
    steps, values = comparison.restrict_to_grid(coarse, grid)
    assert steps.tolist() == [10, 100, 190]
    assert values.tolist() == [10, 100, 10]
    alone = {curve.name: comparison.reliability([curve], grid) for curve in (dense, coarse)}
    assert [alone["a"][name].value for name in ("final", "short_term_risk")] == [190, 90]
    found = {name: alone["b"][name].value for name in ("final", "best", "largest_fall", "drawdown_cvar")}
    assert found == {"final": 10, "best": 100, "largest_fall": 90, "drawdown_cvar": -90}
    assert alone["b"]["short_term_risk"].value == -90
    assert alone["b"]["dispersion"].value == 90  # the differences are 90 and -90
    assert "dispersion" not in comparison.reliability([dense], [10, 190])  # of two points there is one difference


def test_a_group_of_many_runs_in_figures():
    finals = [1.0, 2.0, 3.0, 4.0, 100.0]
    curves = [ragged(f"r{i}", "g", [0, 50, 100], [0, 0, value]) for i, value in enumerate(finals)]
    long = [ragged(f"q{i}", "h", [0, 50, 100, 200], [0, 0, value, -5]) for i, value in enumerate(finals)]
    content = comparison.table(comparison.grouped([*curves, *long]))
    assert content["tasks"][""]["ends_first"].startswith("r")
    row = content["groups"]["g"]
    assert row["worst"] == "r0"
    value, low, high = row["figures"]["final"]
    assert value == 3.0  # one run of five is dropped at each end
    assert (low, high) == reliability.bootstrap_interval([finals])
    assert low < value < high
    assert row["figures"]["risk_across_runs"] == [1.0, None, None]
    assert row["figures"]["dispersion_across_runs"][0] == pytest.approx(2 / 3)  # 0, 0 and 4 - 2
    assert content["groups"]["h"]["figures"]["final"][0] == 3.0  # at step 100, not at its own end
    assert content["improvement"]["g over h"][0] == 0.5


def test_folders_of_other_tools_are_of_the_only_task_there_is():
    ours, theirs = replace(curve([0, 1, 2], "a", "ours"), task="Hopper-v4"), curve([0, 1, 3], "b", "theirs")
    assert [curve.task for curve in comparison.fill_in_task([ours, theirs])] == ["Hopper-v4", "Hopper-v4"]
    several = comparison.fill_in_task([ours, theirs, replace(ours, task="Walker2d-v4")])
    assert [curve.task for curve in several] == ["Hopper-v4", "", "Walker2d-v4"]


def test_a_run_that_was_measured_rarely_looks_no_steadier():
    """Points between two values would cut a change into many small ones."""
    noise = np.random.default_rng(0).normal(size=501)
    dense, coarse = ragged("a", "g", np.arange(501), noise), ragged("b", "h", np.arange(0, 501, 50), noise[::50])
    content = comparison.table(comparison.grouped([dense, coarse]))
    assert content["tasks"][""]["points"] == 11
    figures = [content["groups"][name]["figures"] for name in "gh"]
    for name in ("drawdown_cvar", "dispersion", "short_term_risk"):
        assert figures[0][name] == figures[1][name]  # the two agree wherever both were measured
    assert "11 even steps" in comparison.markdown(content)
    assert len(comparison.shared_grid([dense])) == 100


def test_every_task_is_judged_on_its_own_steps():
    short = [replace(curve([0, 1, 2], f"s{i}", "a"), task="digits") for i in range(2)]
    long = [replace(ragged(f"l{i}", "a", [500, 900, 2000], [1, 5, 7]), task="CIFAR") for i in range(2)]
    content = comparison.table(comparison.grouped([*short, *long]))
    finals = {name: row["figures"]["final"][0] for name, row in content["groups"].items()}
    assert finals == {"CIFAR: a": 7, "digits: a": 2}
    text = comparison.markdown(content)
    assert "digits: steps 0 to 20" in text
    assert "CIFAR: steps 500 to 2,000" in text


def test_the_worst_run_is_that_of_the_shared_stretch():
    runs = [ragged("recovers", "g", [0, 100, 200], [0, 2, 9]), ragged("ends early", "g", [0, 100], [0, 3])]
    assert comparison.table({"g": runs})["groups"]["g"]["worst"] == "recovers"
