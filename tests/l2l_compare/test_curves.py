"""What is read of a run: its curve, its group, its task, and why it cannot be read."""

from pathlib import Path

import numpy as np
import pytest

from l2l_compare import curves
from l2l_experiment.errors import UserError
from l2l_experiment.metrics import METRICS, SECONDS, JsonLines
from tests.l2l_compare.made_up import TAG, foreign_run, our_run


def test_our_runs_and_foreign_folders_are_read_alike(tmp_path):
    ours = curves.read(our_run(tmp_path / "a_s3", [1.0, 2.0, 4.0]))
    theirs = curves.read(foreign_run(tmp_path / "b", [(0, 1.0), (10, 2.0), (20, 4.0)]))
    for curve, group in ((ours, "a"), (theirs, "b")):
        assert (curve.steps.tolist(), curve.values.tolist(), curve.group) == ([0, 10, 20], [1, 2, 4], group)


@pytest.mark.parametrize(
    ("name", "group"),
    [("adam_s12", "adam"), ("s3", "sweep"), ("Hopper-v4_l2l_s0_20260101-120000-2", "Hopper-v4_l2l"), ("last", "last")],
)
def test_the_name_without_its_seed_is_the_group(tmp_path, monkeypatch, name, group):
    folder = our_run(tmp_path / "sweep" / name, [1.0, 2.0])
    assert curves.read(folder).group == group
    monkeypatch.chdir(folder)
    assert curves.read(Path()).group == group


PLACES = {"ppo/seed_3": "ppo", "ppo_seed3": "ppo", "gail_s0/log": "gail", "gail/s0/tb": "gail", "PPO_2": "PPO"}
PLACES |= {"A2C_11": "A2C"} | {name: name for name in ("width_64", "lr_1e-3", "Env-v4")}


@pytest.mark.parametrize(("place", "group"), PLACES.items())
def test_runs_of_other_tools_are_grouped_by_what_is_not_a_seed(tmp_path, place, group):
    assert curves.read(foreign_run(tmp_path / place, [(0, 1.0), (10, 2.0)])).group == group


def test_hours_go_on_where_a_resumed_run_starts_its_clock_anew(tmp_path):
    our_run(tmp_path, [])
    with JsonLines(tmp_path / METRICS) as rows:
        for step, seconds in enumerate((1800, 3600, 1800, 5400)):
            rows.write(step, {TAG: 1.0, SECONDS: seconds})
    assert curves.read(tmp_path).hours.tolist() == [0.5, 1.0, 1.5, 2.5]


def test_doubled_and_missing_values(tmp_path):
    folder = foreign_run(tmp_path / "a", [(0, 1.0), (10, 2.0), (10, 3.0)])
    with pytest.raises(UserError, match="logged 1 steps twice"):
        curves.read(folder)
    assert curves.read(folder, unfinished=True).values.tolist() == [1, 3]
    assert curves.read(folder, unfinished=True).doubled == 1
    ours = our_run(tmp_path / "b", [1.0, np.nan, 4.0])
    assert curves.read(ours).steps.tolist() == [0, 20]


def test_a_run_of_imitation_as_its_hierarchical_logger_lays_it_out(tmp_path):
    """The package imitation (Gleave et al., 2022) writes means beside each other and what they are of in raw/gen."""
    foreign_run(tmp_path / "gail" / "seed_1", [(10, 1.5), (20, 2.5)], tag="mean/gen/rollout/ep_rew_mean")
    points = [(5, 1.0), (10, 2.0), (15, 2.0), (20, 3.0)]
    foreign_run(tmp_path / "gail" / "seed_1" / "raw" / "gen", points, tag="raw/gen/rollout/ep_rew_mean")
    found = curves.read(tmp_path / "gail" / "seed_1")
    assert (found.steps.tolist(), found.values.tolist()) == ([5, 10, 15, 20], [1, 2, 2, 3])
    assert (found.group, found.tag) == ("gail", TAG)  # one figure with the return of other tools, and so comparable
    means = curves.read(tmp_path / "gail" / "seed_1", tag="mean/gen/rollout/ep_rew_mean")
    assert means.values.tolist() == [1.5, 2.5]


def test_groups_by_settings(tmp_path):
    folder = our_run(tmp_path / "x", [1.0, 2.0], {"follower": "l2l", "disc_learning_rate": 0.1})
    assert curves.read(folder, by=("follower",)).group == "l2l"
    assert curves.read(folder, by=("follower", "disc_learning_rate")).group == "l2l, disc_learning_rate 0.1"
    assert curves.read(folder, by=("env", "follower")).group == "l2l"  # the task is no part of a group
    assert curves.read(folder, by=("method", "follower")).group == "–, l2l"  # a setting that another tool has


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        curves.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="two values of loss; name another --tag"):
        curves.read(our_run(tmp_path / "a", [1.0]), tag="loss")


def test_a_log_of_ours_that_is_not_whole_is_left_out_unless_asked_for(tmp_path):
    folder = our_run(tmp_path / "a", [float(value) for value in range(20)])
    (folder / "record.json").write_text('{"kind": "gail", "status": "finished", "steps": 190}')
    assert len(curves.read(folder).steps) == 20
    rows = (folder / METRICS).read_text().splitlines(keepends=True)
    cut_off, with_a_gap, late = "".join(rows)[:-5], "".join(rows[:4] + rows[-4:]), "".join(rows[-9:])
    ends, gap, begins = "ends at step 180, though the run made 190", "gap after step 30", "begins at step 110 only"
    for content, told in ((cut_off, ends), (with_a_gap, gap), (late, begins)):
        (folder / METRICS).write_text(content)
        with pytest.raises(UserError, match=told):
            curves.read(folder)
        assert 7 < len(curves.read(folder, unfinished=True).steps) < 20


def test_a_task_is_what_scales_depend_on(tmp_path):
    settings = {"dataset": "digits", "norm": "linf", "eps": "0.1", "method": "pgd"}
    assert curves.read(our_run(tmp_path / "a", [1.0, 2.0], settings)).task == "digits, linf, 0.1"
    assert curves.read(our_run(tmp_path / "b", [1.0, 2.0], {"env": "Hopper-v4"})).task == "Hopper-v4"


def test_a_cut_off_or_damaged_log_is_left_out_unless_asked_for(tmp_path):
    folder = foreign_run(tmp_path / "a", [(step, 1.0) for step in range(20)])
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match="cut off or damaged"):
        curves.read(folder)
    assert 1 < len(curves.read(folder, unfinished=True).steps) < 20
    ours = our_run(tmp_path / "b", [1.0, 2.0])
    with (ours / METRICS).open("a") as rows:
        rows.write('{"step": 25, "rollout/ep_rew_mean": "high"}\n{"step": 30, "rollout/ep_rew_mean": 3.0}\n')
    with pytest.raises(UserError, match="damaged"):
        curves.read(ours)
    (ours / "record.json").write_text('{"kind": "gail", "status": "interrupted"}')
    with pytest.raises(UserError, match="interrupted, not finished"):
        curves.read(ours)
    assert curves.read(ours, unfinished=True).values.tolist() == [1, 2]
    (ours / "record.json").unlink()
    with pytest.raises(UserError, match="without record"):
        curves.read(ours)


@pytest.mark.parametrize("record", ['{"kind": "experiment"}', "[]", "{"])
@pytest.mark.parametrize("content", ["- a\n- b\n", "!!python/object/apply:os.getcwd []", "a: ["])
def test_files_of_other_tools_with_our_names_are_not_ours(tmp_path, content, record):
    folder = foreign_run(tmp_path / "zoo", [(0, 1.0), (10, 2.0)])
    (folder / "config.yaml").write_text(content)
    (folder / "record.json").write_text(record)
    (folder / METRICS).write_text('{"loss": 1}\n')
    assert curves.read(folder, by=("follower",)).values.tolist() == [1, 2]


@pytest.mark.parametrize("make", [our_run, foreign_run])
def test_what_is_no_number(make, tmp_path):
    def run(name: str, values: list[float]) -> Path:
        return make(tmp_path / name, values if make is our_run else [(10 * i, v) for i, v in enumerate(values)])

    late = curves.read(run("late", [np.nan, 1.0, 2.0]))  # a return needs an episode that has ended
    assert (late.steps.tolist(), late.missing) == ([10, 20], 0)
    holes = curves.read(run("holes", [1.0, np.inf, np.nan, 4.0]))
    assert (holes.values.tolist(), holes.missing) == ([1, 4], 2)
    diverged = run("diverged", [1.0, 2.0, np.nan, np.nan])
    with pytest.raises(UserError, match="after step 10: it diverged"):
        curves.read(diverged)
    assert curves.read(diverged, unfinished=True).values.tolist() == [1, 2]
    for values in ([np.nan] * 4, [1.0] + [np.inf] * 3):
        with pytest.raises(UserError, match=f"{TAG} is NaN or infinite throughout"):
            curves.read(run(f"nothing{values[0]}", values))
