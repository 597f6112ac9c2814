"""A run from flags to report: its folder, killed, interrupted, resumed, extended, and what is refused."""

import json
import shutil
import signal
import time
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from l2l_experiment import checkpoint, metrics
from l2l_experiment.run import Run
from l2l_gail import GAIL, Environment, alarms, cloning, report
from l2l_gail.cli import main
from l2l_gail.session import stored_args
from tests.l2l_gail.conftest import make_demonstrations


@pytest.fixture
def at(monkeypatch):
    """Does something, once, as soon as the row of a step is logged, before the checkpoint of that step."""

    def at(step, action):
        write, actions = metrics.JsonLines.write, {step: action}

        def also(self, now, values):
            write(self, now, values)
            actions.pop(now, lambda: None)()

        monkeypatch.setattr(metrics.JsonLines, "write", also)

    return at


@pytest.fixture
def always_flat(monkeypatch):
    """An alarm that every discriminator raises, after three rounds."""
    monkeypatch.setattr(alarms, "PATIENCE", 3)
    monkeypatch.setitem(alarms.TROUBLES, "flat_since", alarms.TROUBLES["flat_since"]._replace(limit=1e3))


def rows(folder):
    return metrics.read(folder / "metrics.jsonl")


def record(folder):
    return json.loads((folder / "record.json").read_text())


def curve(folder, tag):
    """Steps and values that TensorBoard shows."""
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_run_from_flags_to_report(flags, refused, tmp_path, capsys, always_flat):
    folder, other = tmp_path / "run", tmp_path / "carried"
    main(["--l2l", "--run-dir", str(folder), "--steps", "256", *flags])
    printed = capsys.readouterr()
    assert "% of expert" in printed.out
    assert printed.err.count("ALARM: for 3 rounds the discriminator has given every transition the same logit") == 1
    assert (record(folder)["status"], record(folder)["steps"]) == ("finished", 256)
    result = record(folder)["result"]
    assert result["percent_of_expert"] == pytest.approx(result["return"]["mean"] / 40 * 100)
    assert result["flat_since"] == 64
    assert [row["step"] for row in rows(folder)] == [64, 128, 192, 256]
    for tag in (
        "train_disc/loss",
        "train_disc/heldout_acc",
        "train_follower/log_rate",
        "train_reward/std",
        "train/value_loss",
    ):
        shown = curve(folder, tag)
        assert [value for _, value in shown] == pytest.approx([r[tag] for r in rows(folder) if tag in r], rel=1e-6)
    saw = np.ones((2, 17))  # both files open in plain Stable-Baselines3
    filter_ = VecNormalize.load(str(folder / "observation_filter.pkl"), Environment("HalfCheetah-v4").vectorised(1, 0))
    action = PPO.load(folder / "policy.zip", device="cpu").predict(filter_.normalize_obs(saw), deterministic=True)[0]
    np.testing.assert_array_equal(action, GAIL.load(folder).predict(saw, deterministic=True)[0])

    refused(main, ["--run-dir", folder, *flags], str(folder), "not empty")
    refused(main, ["--resume", folder, "--seed", "3"], "--seed cannot be given with --resume")
    refused(main, ["--resume", folder, "--steps", "64"], "256 steps already")
    with Run.open(folder, kind="gail").locked():
        refused(main, ["--resume", folder], "another process")
    frozen = ["--l2l", "--follower-from", str(folder), "--freeze-follower"]
    main([*frozen, "--run-dir", str(other), "--steps", "64", *flags])
    rules = [checkpoint.latest(run)["follower"]["learner"]["rule"] for run in (folder, other)]
    assert all((rules[0][name] == rules[1][name]).all() for name in rules[0])

    for path in folder.glob("checkpoints/*/tensors.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    before = (folder / "metrics.jsonl").read_bytes()
    refused(main, ["--resume", folder, "--steps", "512"], "damaged", str(folder))
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_resumed_run_goes_on_counting_rounds_for_its_alarms(flags, tmp_path, capsys, always_flat):
    main(["--run-dir", str(tmp_path / "run"), "--steps", "128", *flags])
    assert "ALARM" not in capsys.readouterr().err
    main(["--resume", str(tmp_path / "run"), "--steps", "192"])
    assert capsys.readouterr().err.count("ALARM: for 3 rounds") == 1
    main(["--resume", str(tmp_path / "run"), "--steps", "256"])
    assert "ALARM" not in capsys.readouterr().err


@pytest.mark.parametrize(("follower", "shown"), [("adam", True), ("l2l-pretrained", False)])
def test_hparams_have_the_rate_of_followers_that_read_one(flags, tmp_path, follower, shown):
    main(["--follower", follower, "--run-dir", str(tmp_path / "run"), "--steps", "64", *flags])
    plugin = EventAccumulator(str(tmp_path / "run")).Reload().PluginTagToContent(metadata.PLUGIN_NAME)
    started = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG])
    assert ("disc_learning_rate" in started.hparams, "follower" in started.hparams) == (shown, True)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "saved"), [(320, 256), (64, 0)])
def test_a_killed_and_resumed_run_has_no_gap_and_no_doubled_point(flags, tmp_path, at, step, saved):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    at(step, lambda: shutil.copytree(whole, killed))  # what is on disk at that moment is what a kill leaves
    main(["--l2l", "--steps", "512", *flags, "--run-dir", str(whole)])
    assert rows(killed)[-1]["step"] == step
    time.sleep(1)  # TensorBoard tells event files apart by their second
    main(["--resume", str(killed)])
    for tag in ("train_reward/mean", "train_disc/loss", "train/value_loss"):
        assert curve(killed, tag) == curve(whole, tag) != []
        assert [row.get(tag) for row in rows(killed)] == [row.get(tag) for row in rows(whole)]
    assert [row["step"] for row in rows(killed)] == list(range(64, 513, 64))
    assert record(killed)["resumed_at"] == [saved]
    assert record(killed)["resumed_exactly"] == [True]
    assert "missing_rows" not in record(killed)


def test_rows_that_a_power_cut_took_are_told(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    main(["--steps", "256", *flags, "--run-dir", str(folder)])
    log = folder / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if json.loads(line)["step"] > 128))
    main(["--resume", str(folder), "--steps", "320"])
    assert "2 of 4 rows before step 256 are missing (the first at 64)" in capsys.readouterr().err
    assert record(folder)["missing_rows"] == [64, 128]


@pytest.mark.slow
def test_a_resume_that_resets_environments_says_so(flags, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr("l2l_gail.environment_state.STATELESS_WRAPPERS", set())  # as for any wrapper that is not known
    main(["--steps", "128", *flags, "--run-dir", str(folder)])
    main(["--resume", str(folder), "--steps", "192"])
    assert "note: the state of these environments cannot be read back" in capsys.readouterr().out
    assert record(folder)["resumed_exactly"] == [False]


@pytest.mark.slow
def test_the_policy_is_evaluated_while_it_trains_and_that_changes_nothing(flags, tmp_path, at):
    plain, seen, killed = (tmp_path / name for name in ("plain", "seen", "killed"))
    main(["--steps", "256", "--eval-every", "0", *flags, "--run-dir", str(plain)])
    at(192, lambda: shutil.copytree(seen, killed))
    main(["--steps", "256", "--eval-every", "100", *flags, "--run-dir", str(seen)])
    time.sleep(1)
    main(["--resume", str(killed)])
    assert [curve(folder, "train_disc/loss") for folder in (seen, killed)] == 2 * [curve(plain, "train_disc/loss")]
    assert [step for step, _ in curve(seen, "eval/return")] == [128, 256]  # the first round behind 100, and the end
    assert curve(plain, "eval/return") == curve(seen, "eval/return")[1:]
    assert curve(killed, "eval/return") == curve(seen, "eval/return")
    assert curve(seen, "eval/percent_of_expert")[-1][1] == pytest.approx(
        record(seen)["result"]["percent_of_expert"], rel=1e-6
    )


def test_stability_is_logged_in_episodes_and_goes_on(config, tmp_path):
    gail = GAIL("Pendulum-v1", make_demonstrations(3, 1), config=replace(config, n_envs=8, n_steps=100))
    gail.learn(1600)
    assert "stability/drawdown" not in gail.figures  # 8 episodes have ended, and a level is of ten
    gail.learn(1600, reset_num_timesteps=False)
    assert gail.figures["stability/drawdown"] <= 0 <= gail.figures["stability/spread"]
    gail.save(tmp_path)
    assert GAIL.load(tmp_path).stability.state_dict() == gail.stability.state_dict()


@pytest.mark.slow
def test_an_extended_run_is_interrupted_and_keeps_its_new_end(flags, tmp_path, at):
    folder = tmp_path / "run"
    main(["--filter", "running", "--run-dir", str(folder), "--steps", "64", *flags])
    exported = VecNormalize.load(str(folder / "observation_filter.pkl"), Environment("HalfCheetah-v4").vectorised(1, 0))
    assert not exported.training  # one that is loaded does not go on moving
    at(192, lambda: signal.raise_signal(signal.SIGINT))
    main(["--resume", str(folder), "--steps", "1000000"])
    found = record(folder)
    assert (found["status"], found["steps"]) == ("interrupted", 192)
    assert checkpoint.latest(folder)["leader"]["num_timesteps"] == rows(folder)[-1]["step"] == 192
    assert "result" not in found  # that of 64 steps is no longer this run's
    assert [session["step"] for session in found["sessions"]] == [64]
    assert stored_args(Run.open(folder, kind="gail")).steps == 1_000_000


@pytest.mark.slow
def test_a_run_stopped_while_cloning_starts_over(flags, tmp_path, monkeypatch, capsys):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    flags = ["--steps", "128", "--bc-epochs", "3", *flags]
    main([*flags, "--run-dir", str(straight)])
    with monkeypatch.context() as patch:
        patch.setattr(cloning, "clone", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(SystemExit, match="130"):
            main([*flags, "--run-dir", str(broken)])
    main(["--resume", str(broken)])
    assert "starts over" in capsys.readouterr().out
    found = [record(folder) for folder in (straight, broken)]
    assert found[0]["result"] == found[1]["result"]
    assert found[1]["resumed_at"] == [0]
    assert curve(straight, "train_disc/loss") == curve(broken, "train_disc/loss")


def test_ctrl_c_stops_behaviour_cloning(flags, tmp_path, monkeypatch, capsys):
    passes, loss = [], cloning.bc_loss

    def interrupting(*given):
        passes.append(None)
        if len(passes) == 2:
            signal.raise_signal(signal.SIGINT)
        return loss(*given)

    monkeypatch.setattr(cloning, "bc_loss", interrupting)
    main(["--run-dir", str(tmp_path / "run"), "--steps", "128", "--bc-epochs", "1000", *flags])
    assert len(passes) == 2
    assert f"Start over with: l2l-train-gail --resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert record(tmp_path / "run")["status"] == "running"


def test_ctrl_c_while_it_is_evaluated_keeps_the_trained_run(flags, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(report, "result", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(SystemExit, match="130"):
            main(["--run-dir", str(tmp_path / "run"), "--steps", "128", *flags])
    assert "Evaluate it with: l2l-train-gail --resume" in capsys.readouterr().out
    assert record(tmp_path / "run")["status"] == "interrupted"
    main(["--resume", str(tmp_path / "run")])
    assert record(tmp_path / "run")["status"] == "finished"


def test_a_finished_run_that_is_evaluated_again_has_one_point_in_its_curves(flags, tmp_path, capsys):
    folder = tmp_path / "run"
    main(["--run-dir", str(folder), "--steps", "100", *flags])  # makes 128
    capsys.readouterr()
    main(["--resume", str(folder), "--eval-episodes", "3"])
    assert record(folder)["result"]["return"]["n"] == 3
    assert sum('"eval/return"' in line for line in (folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("eval/return")] == [128]
    assert " -" not in capsys.readouterr().err, "the bar does not run backwards"


def test_demonstrations_that_have_moved_are_named_once(flags, demos, refused, tmp_path):
    folder = str(tmp_path / "run")
    main(["--run-dir", folder, "--steps", "64", *flags])
    there = demos.rename(tmp_path / "elsewhere.npz")
    refused(main, ["--resume", folder, "--steps", "128"], str(demos), "--demos")
    main(["--resume", folder, "--steps", "128", "--demos", str(there)])
    main(["--resume", folder, "--steps", "192", "--eval-episodes", "3"])
    assert record(tmp_path / "run")["result"]["return"]["n"] == 3
    there.rename(demos)
    main(["--resume", folder, "--steps", "256", "--demos", str(demos)])
    main(["--resume", folder, "--steps", "320"])
    assert record(tmp_path / "run")["steps"] == 320


@pytest.mark.parametrize("cause", [("--learning-rate", "1e30"), ("--disc-learning-rate", "1e38")], ids=lambda c: c[0])
def test_a_run_that_diverges_says_so(flags, refused, tmp_path, cause):
    folder = tmp_path / "run"
    refused(main, ["--run-dir", folder, "--steps", "256", *flags, *cause], "NaN or infinite", cause[0])
    assert record(folder)["status"] == "diverged"
    policy = checkpoint.latest(folder)["leader"]["policy"]
    assert all(weight.isfinite().all() for weight in policy.values())
