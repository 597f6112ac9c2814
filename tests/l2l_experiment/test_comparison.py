"""Comparison of runs: what is read, and the figures by hand."""

import time
from dataclasses import replace

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from l2l_experiment import comparison, events, stability
from l2l_experiment.comparison import Curve
from l2l_experiment.errors import UserError
from tests.l2l_experiment.made_up import TAG, curve, foreign_run, our_run, ragged


def test_our_runs_and_foreign_folders_are_read_alike(tmp_path):
    ours = comparison.read(our_run(tmp_path / "a_s3", [1.0, 2.0, 4.0]))
    theirs = comparison.read(foreign_run(tmp_path / "b", [(0, 1.0), (10, 2.0), (20, 4.0)]))
    assert ours.steps.tolist() == theirs.steps.tolist() == [0, 10, 20]
    assert ours.values.tolist() == theirs.values.tolist() == [1, 2, 4]
    assert (ours.group, theirs.group) == ("a", "b")


@pytest.mark.parametrize(
    ("name", "group"),
    [("adam_s12", "adam"), ("s3", "sweep"), ("Hopper-v4_l2l_s0_20260101-120000-2", "Hopper-v4_l2l"), ("last", "last")],
)
def test_the_name_without_its_seed_is_the_group(tmp_path, name, group):
    assert comparison.read(our_run(tmp_path / "sweep" / name, [1.0, 2.0])).group == group


def test_the_return_of_imitation_is_found(tmp_path):
    folder = foreign_run(tmp_path / "log", [(0, 1.0), (10, 2.0)], tag="raw/gen/rollout/ep_rew_mean")
    assert comparison.read(folder).values.tolist() == [1, 2]


def test_a_folder_of_runs_is_no_run(tmp_path):
    for name in "ab":
        foreign_run(tmp_path / name, [(0, 1.0), (10, 2.0)])
    with pytest.raises(UserError, match="several runs"):
        comparison.read(tmp_path)


def test_runs_of_different_lengths_are_compared_where_both_are(tmp_path):
    short, long = curve([0, 1, 2], "short", "a"), curve([0, 1, 2, 3, 9], "long", "b")
    groups = comparison.grouped([short, long])
    grid = comparison.shared_grid([short, long])
    content = comparison.table(groups, grid)
    assert content["steps"] == [0, 20]
    assert content["improvement"]["a over b"][0] == 0.5
    assert content["groups"]["b"]["figures"]["final"][0] == 2
    assert "| – |" in comparison.markdown(content)


@pytest.mark.parametrize(
    "row",
    [
        '{"rollout/ep_rew_mean": 1.0}',
        '{"step": 1, "rollout/ep_rew_mean": "high"}',
        '{"step": null, "rollout/ep_rew_mean": 1.0}',
        '{"step": Infinity, "rollout/ep_rew_mean": 1.0}',
        '{"step": 1, "rollout/ep_rew_mean": 1%s}' % ("0" * 400),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path, row):
    folder = our_run(tmp_path / "a", [1.0, 2.0])
    with (folder / events.METRICS).open("a") as rows:
        rows.write(row + "\n")
    with pytest.raises(UserError, match="damaged"):
        comparison.read(folder)


def test_hours_go_on_where_a_resumed_run_starts_its_clock_anew(tmp_path):
    (tmp_path / "record.json").write_text('{"kind": "gail", "status": "finished"}')
    with events.JsonLines(tmp_path / events.METRICS) as rows:
        for step, seconds in enumerate((1800, 3600, 1800, 5400)):
            rows.write(step, {TAG: 1.0, events.SECONDS: seconds})
    assert comparison.read(tmp_path).hours.tolist() == [0.5, 1.0, 1.5, 2.5]


def test_hours_of_event_files_leave_out_the_time_between_two_of_them(tmp_path):
    for session in (0, 1):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{session}") as writer:
            for step in (1, 2):
                writer.add_scalar(TAG, 1.0, 2 * session + step, walltime=time.time() + 3600 * step)
    assert comparison.read(tmp_path).hours == pytest.approx([1, 2, 3, 4], abs=0.01)


def test_doubled_and_missing_values(tmp_path):
    folder = foreign_run(tmp_path / "a", [(0, 1.0), (10, 2.0), (10, 3.0), (20, np.nan)])
    assert comparison.read(folder).values.tolist() == [1, 3]
    assert comparison.read(folder).doubled == 1
    ours = our_run(tmp_path / "b", [1.0, np.nan, 4.0])
    assert comparison.read(ours).steps.tolist() == [0, 20]


def test_groups_by_settings(tmp_path):
    folder = our_run(tmp_path / "x", [1.0, 2.0], {"follower": "l2l", "disc_rate": 0.1})
    assert comparison.read(folder, by=("follower",)).group == "l2l"
    assert comparison.read(folder, by=("follower", "disc_rate")).group == "l2l, disc_rate 0.1"
    with pytest.raises(UserError, match="--by nothing"):
        comparison.read(folder, by=("nothing",))


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        comparison.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="another --tag"):
        comparison.read(our_run(tmp_path / "a", [1.0]))
    with pytest.raises(UserError, match="loss"):
        comparison.read(our_run(tmp_path / "b", [1.0, 2.0]), tag="loss")


@pytest.mark.parametrize(("name", "content"), [("record.json", '{"status": "fin'), ("config.yaml", "settings: [")])
def test_a_damaged_file_is_named(tmp_path, name, content):
    folder = our_run(tmp_path / "a", [1.0, 2.0])
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        comparison.read(folder, by=("follower",))


def test_a_run_that_was_cut_off_is_left_out_unless_asked_for(tmp_path):
    folder = our_run(tmp_path / "a", [1.0, 2.0])
    (folder / "record.json").write_text('{"kind": "gail", "status": "interrupted"}')
    with pytest.raises(UserError, match="interrupted, not finished"):
        comparison.read(folder)
    assert comparison.read(folder, unfinished=True).values.tolist() == [1, 2]


def test_reliability_by_hand():
    curves = [curve([0, 10, 4, 12], "a"), curve([0, 20, 20, 20], "b")]
    grid = np.array([0.0, 10.0, 20.0, 30.0])
    found = comparison.reliability(curves, grid)
    assert found["final"].value == 16
    assert found["largest_fall"].value == 3  # 6 and 0
    assert found["final"].low is None  # two runs have no interval
    assert found["risk_across_runs"].value == 12
    # Two runs: the interquartile range is half of their distance, here 0, 10, 16 and 8.
    assert found["dispersion_across_runs"].value == pytest.approx(np.mean([0, 10, 16, 8]) / 2)


def test_one_run_has_no_interval():
    found = comparison.reliability([curve([0, 1, 2])], np.array([0.0, 10.0, 20.0]))
    assert found["final"] == (2.0, None, None)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1], 0.5), ([0, 2], [1, 2], 0.375)],
)
def test_probability_of_improvement_by_counting(left, right, expected):
    found = comparison.probability_of_improvement([(left, right)])
    assert found == (expected, None, None)
    thrice = comparison.probability_of_improvement([(3 * left, 3 * right)])
    assert thrice.value == expected
    assert thrice.low <= expected <= thrice.high


def test_improvement_over_tasks_is_within_each_task():
    """Better by ten on both tasks, whose scales are far apart: pooled, the tasks' distance would be all one saw."""

    def runs(task, group, values):
        return [replace(curve([0, value], f"{task}{group}{value}", group), task=task) for value in values]

    curves = [
        *runs("easy", "a", [5000, 5001, 5002]),
        *runs("easy", "b", [5010, 5011, 5012]),
        *runs("hard", "a", [10, 11, 12]),
        *runs("hard", "b", [20, 21, 22]),
    ]
    groups = comparison.grouped(curves)
    assert list(groups) == ["easy: a", "easy: b", "hard: a", "hard: b"]
    content = comparison.table(groups, comparison.shared_grid(curves))
    assert content["improvement"]["a over b, mean of 2 tasks"] == [0, 0, 0]
    assert content["improvement"]["hard: a over b"] == [0, 0, 0]
    assert content["groups"]["easy: a"]["figures"]["dispersion_across_runs"][0] <= 1


def test_a_group_that_mixes_settings_says_so(tmp_path):
    runs = [our_run(tmp_path / f"x_s{i}", [1.0, 2.0], {"follower": "l2l", "seed": i, "rate": i % 2}) for i in range(2)]
    groups = comparison.grouped([comparison.read(run, by=("follower",)) for run in runs])
    content = comparison.table(groups, np.array([0.0, 10.0]))
    assert content["groups"]["l2l"]["mixes"] == ["rate"]
    assert "differ in rate" in comparison.markdown(content)


def test_a_task_is_what_scales_depend_on(tmp_path):
    settings = {"dataset": "digits", "norm": "linf", "eps": "0.1", "method": "pgd"}
    assert comparison.read(our_run(tmp_path / "a", [1.0, 2.0], settings)).task == "digits, linf, 0.1"
    assert comparison.read(our_run(tmp_path / "b", [1.0, 2.0], {"env": "Hopper-v4"})).task == "Hopper-v4"


def test_a_cut_off_or_damaged_log_is_left_out_unless_asked_for(tmp_path):
    folder = foreign_run(tmp_path / "a", [(step, 1.0) for step in range(20)])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    at = whole.index(TAG.encode(), len(whole) // 2) + len(TAG) + 3
    for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="cut off or damaged"):
            comparison.read(folder)
        assert 1 < len(comparison.read(folder, unfinished=True).steps) < 20
    ours = our_run(tmp_path / "b", [1.0, 2.0])
    (ours / "record.json").unlink()
    with pytest.raises(UserError, match="without record"):
        comparison.read(ours)


def test_curves_without_a_common_stretch_are_refused():
    late = Curve("r", "g", TAG, np.array([100.0, 200.0]), np.array([1.0, 2.0]), np.array([0.1, 0.2]))
    with pytest.raises(UserError, match="share no stretch"):
        comparison.shared_grid([curve([1, 2, 3]), late])


def test_figures_of_runs_that_are_logged_at_different_steps():
    """Every figure is of the stretch that all runs cover, and ends at its last step, whatever a run logged inside."""
    dense = ragged("a", "g", np.arange(10, 200, 20), np.arange(10, 200, 20))  # a line through the origin
    coarse = ragged("b", "g", [0, 100, 200], [0, 100, 0])
    grid = comparison.shared_grid([dense, coarse])
    assert grid[[0, -1]].tolist() == [10, 190]
    steps, values = comparison.within(coarse, grid)
    assert steps.tolist() == [10, 100, 190]
    assert values.tolist() == [10, 100, 10]
    alone = {curve.name: comparison.reliability([curve], grid) for curve in (dense, coarse)}
    assert alone["a"]["final"].value == 190
    assert alone["b"]["final"].value == 10
    assert alone["b"]["best"].value == 100
    assert alone["b"]["largest_fall"].value == 90
    # On the grid of 100 points: worst 5 of the drawdowns, and of the differences, of a line that rises and falls.
    step = 180 / 99
    assert alone["b"]["drawdown_cvar"].value == pytest.approx(-(90 - 2 * step), abs=step / 2)
    assert alone["b"]["short_term_risk"].value == pytest.approx(-step)
    assert alone["a"]["short_term_risk"].value == pytest.approx(step)
    assert alone["b"]["dispersion"].value == pytest.approx(2 * step)  # half of the differences are +step, half -step


def test_a_group_of_many_runs_in_figures():
    finals = [1.0, 2.0, 3.0, 4.0, 100.0]
    curves = [ragged(f"r{i}", "g", [0, 50, 100], [0, 0, value]) for i, value in enumerate(finals)]
    long = [ragged(f"q{i}", "h", [0, 50, 100, 200], [0, 0, value, -5]) for i, value in enumerate(finals)]
    content = comparison.table(comparison.grouped([*curves, *long]), comparison.shared_grid([*curves, *long]))
    assert content["ends_first"].startswith("r")
    row = content["groups"]["g"]
    assert row["worst"] == "r0"
    value, low, high = row["figures"]["final"]
    assert value == 3.0  # one run of five is dropped at each end
    assert (low, high) == stability.bootstrap_interval([finals], stability.interquartile_mean)
    assert low < value < high
    assert row["figures"]["risk_across_runs"][0] == 1.0
    assert row["figures"]["dispersion_across_runs"][0] == pytest.approx(
        stability.dispersion_across_runs(
            [np.interp(np.linspace(0, 100, 100), [0, 50, 100], [0, 0, value]) for value in finals]
        ).mean()
    )
    assert content["groups"]["h"]["figures"]["final"][0] == 3.0  # at step 100, not at its own end
    assert content["improvement"]["g over h"][0] == 0.5


def test_the_interval_of_an_improvement_is_a_bootstrap_over_runs():
    left, right = [0.0, 2.0, 4.0, 6.0], [1.0, 3.0, 5.0, 7.0]
    found = comparison.probability_of_improvement([(left, right)])
    assert found.value == 6 / 16
    assert found.low < 0.2
    assert found.high > 0.6


def test_folders_of_other_tools_are_of_the_only_task_there_is():
    ours = replace(curve([0, 1, 2], "a", "ours"), task="Hopper-v4")
    theirs = curve([0, 1, 3], "b", "theirs")
    curves = comparison.of_one_task([ours, theirs])
    content = comparison.table(comparison.grouped(curves), comparison.shared_grid(curves))
    assert content["improvement"]["ours over theirs"][0] == 0
    several = comparison.of_one_task([ours, theirs, replace(ours, task="Walker2d-v4")])
    assert [curve.task for curve in several] == ["Hopper-v4", "", "Walker2d-v4"]


@pytest.mark.parametrize("content", ["- a\n- b\n", "!!python/object/apply:collections.OrderedDict\n- []\n", "a: ["])
def test_files_of_other_tools_with_our_names_are_not_ours(tmp_path, content):
    folder = foreign_run(tmp_path / "zoo", [(0, 1.0), (10, 2.0)])
    (folder / "config.yaml").write_text(content)
    (folder / "record.json").write_text('{"name": "mine"}')
    (folder / events.METRICS).write_text('{"loss": 1}\n')
    assert comparison.read(folder, by=("follower",)).values.tolist() == [1, 2]
