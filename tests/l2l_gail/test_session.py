"""The command: a run from flags to report, resume, and one sentence for every mistake."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from l2l_experiment import checkpoint, events
from l2l_experiment.run import Run
from l2l_gail import cli, cloning
from l2l_gail.alarm import Alarm
from l2l_gail.environments import make_envs
from l2l_gail.training import stored_args
from tests.l2l_gail.conftest import make_demonstrations

SMALL = [
    "--num-envs",
    "2",
    "--round-steps",
    "32",
    "--policy-batch",
    "32",
    "--policy-epochs",
    "2",
    "--disc-hidden",
    "16",
]
SMALL += ["--disc-updates", "4", "--disc-batch", "16", "--follower-steps", "2", "--eval-episodes", "1"]
SMALL += ["--num-demos", "2", "--checkpoint-every", "2"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "train_gail.py"


@pytest.fixture
def demos(tmp_path) -> Path:
    """Three demonstrations in HalfCheetah's shapes, as an .npz file."""
    episodes = make_demonstrations(17, 6).episodes
    path = tmp_path / "demos.npz"
    np.savez(
        path,
        observations=np.concatenate([e.observations[:-1] for e in episodes]),
        actions=np.concatenate([e.actions for e in episodes]),
        rewards=np.concatenate([e.rewards for e in episodes]),
        episode_ends=np.array([40, 80, 120]),
    )
    return path


def fails(capsys, argv, *words):
    """The command ends with exit code 2 and one sentence that holds the words."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in argv])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]


def test_a_run_from_flags_to_report(demos, tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main(["--l2l", "--demos", str(demos), "--run-dir", str(folder), "--steps", "256", *SMALL])
    printed = capsys.readouterr().out
    assert "% of expert" in printed
    assert "tensorboard --logdir" in printed
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 256
    assert record["result"]["return"]["n"] == 1
    rows = events.read(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [64, 128, 192, 256]
    for tag in ("disc/disc_loss", "disc/disc_acc", "disc/heldout_acc", "follower/log_rate", "reward/std"):
        steps, values = events.read_scalars(folder, tag)
        assert len(steps) == 4, tag
        assert np.isfinite(values).all(), tag
    assert (folder / "policy.zip").is_file()
    assert (folder / "observation_filter.pkl").is_file()

    fails(capsys, ["--demos", demos, "--run-dir", folder, *SMALL], str(folder), "not empty")
    fails(capsys, ["--resume", folder, "--seed", "3"], "--seed")
    fails(capsys, ["--resume", folder, "--steps", "64"], "256 steps already")
    other = tmp_path / "carried"
    cli.main(
        ["--l2l", "--follower-from", str(folder), "--freeze-follower", "--demos", str(demos), "--run-dir"]
        + [str(other), "--steps", "64", *SMALL]
    )
    rules = [checkpoint.latest(run)[0]["follower"]["rule"] for run in (folder, other)]
    assert all((rules[0][name] == rules[1][name]).all() for name in rules[0])


@pytest.mark.parametrize("first", [128, 256])
def test_killed_and_resumed_run_has_no_gap_and_no_doubled_point(demos, tmp_path, first):
    flags = ["--l2l", "--demos", str(demos), "--steps", "1920", *SMALL]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    cli.main([*flags, "--run-dir", str(whole)])
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags, "--run-dir", str(killed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: (killed / f"checkpoints/step_{first:09d}").is_dir(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = len((killed / "metrics.jsonl").read_bytes().splitlines())
    assert reached < 30, "killed too late to test anything"
    cli.main(["--resume", str(killed)])
    for tag in ("rollout/ep_len_mean", "disc/disc_loss", "train/value_loss"):
        one, two = (events.read_scalars(folder, tag) for folder in (whole, killed))
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
    raw = [row["step"] for row in events.read(killed / "metrics.jsonl")]
    assert raw == list(range(64, 1921, 64))
    (resumed,) = json.loads((killed / "record.json").read_text())["resumed_at"]
    assert resumed >= first
    assert resumed % 128 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_and_says_how_to_continue(demos, tmp_path, number):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--demos", str(demos), "--steps", "1000000", *SMALL, "--run-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: (folder / "metrics.jsonl").is_file() and (folder / "metrics.jsonl").stat().st_size > 0, process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"--resume {folder}" in out
    _, meta = checkpoint.latest(folder)
    assert meta["policy"]["num_timesteps"] == events.read(folder / "metrics.jsonl")[-1]["step"]
    assert json.loads((folder / "record.json").read_text())["status"] == "interrupted"


def test_a_run_stopped_while_cloning_starts_over(demos, tmp_path, monkeypatch, capsys):
    flags = ["--demos", str(demos), "--steps", "128", "--bc-epochs", "3", *SMALL]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    cli.main([*flags, "--run-dir", str(straight)])

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cloning, "clone", interrupt)
        with pytest.raises(SystemExit) as stopped:
            cli.main([*flags, "--run-dir", str(broken)])
    assert stopped.value.code == 130
    assert not checkpoint.exists(broken)
    cli.main(["--resume", str(broken)])
    assert "starts over" in capsys.readouterr().out
    records = [json.loads((folder / "record.json").read_text()) for folder in (straight, broken)]
    assert records[0]["bc_loss"] == records[1]["bc_loss"]
    assert records[0]["result"]["return"] == records[1]["result"]["return"]
    assert records[1]["resumed_at"] == [0]
    tag = "disc/disc_loss"
    np.testing.assert_array_equal(events.read_scalars(straight, tag), events.read_scalars(broken, tag))


def wait_for(condition, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < end, "the run did not get going"
        time.sleep(0.02)


def test_mistakes_get_one_sentence(demos, tmp_path, capsys):
    good = ["--demos", demos, "--run-dir", tmp_path / "run"]
    fails(capsys, [*good, "--env", "NoSuchTask-v0"], "NoSuchTask")
    fails(capsys, [*good, "--env", "Hopper-v4"], "demos.npz", "11")
    fails(capsys, ["--env", "Swimmer-v4"], "Swimmer-v4")
    fails(capsys, [*good, "--num-demos", "4"], "--num-demos 4", "3")
    fails(capsys, [*good, "--num-demos", "0"], "--num-demos")
    fails(capsys, [*good, "--disc-rate", "-1"], "--disc-rate")
    fails(capsys, [*good, "--l2l", "--follower-steps", "3"], "--follower-steps")
    fails(capsys, [*good, "--device", "tpu"], "--device")
    fails(capsys, [*good, "--num-demos", "2", "--follower-from", tmp_path], "--l2l")
    fails(capsys, [*good, "--l2l", "--log-rate-rate", "-1"], "--log-rate-rate")
    fails(capsys, [*good, "--l2l", "--holdout", "0.9999"], "--holdout")
    fails(capsys, [*good, "--env", "Hopper-v3"], "Hopper-v3")
    fails(capsys, [*good, "--env", "nomodule:Env-v0"], "nomodule")
    fails(capsys, [*good, "--seed", "-1"], "--seed")
    fails(capsys, [*good, "--policy-batch", "1"], "--policy-batch")
    fails(capsys, [*good, "--disc-hidden", "-1"], "--disc-hidden")
    fails(capsys, [*good, "--log-std-init", "200"], "--log-std-init")
    fails(capsys, [*good, "--gae-lambda", "nan"], "--gae-lambda")
    fails(capsys, ["--resume", tmp_path / "nothing"], "nothing")
    fails(capsys, ["--resume", tmp_path], "not a run")
    assert not (tmp_path / "run").exists(), "a refused command leaves nothing behind"


def test_unknown_flag_is_an_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--no-such-flag", "1"])
    assert stopped.value.code == 2


def test_damaged_and_foreign_runs_are_refused(demos, tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main(["--demos", str(demos), "--run-dir", str(folder), "--steps", "128", *SMALL])
    for path in folder.glob("checkpoints/*/tensors.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    fails(capsys, ["--resume", folder], "damaged", str(folder))
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"kind": "other"}))
    fails(capsys, ["--resume", folder], "other")
    (folder / "record.json").write_text("{")
    fails(capsys, ["--resume", folder], "record.json", "damaged")


def test_behaviour_cloning_alone_is_a_baseline(demos, tmp_path):
    folder = tmp_path / "bc"
    losses = {}
    for epochs in (1, 30):
        run = folder / str(epochs)
        cli.main(["--demos", str(demos), "--run-dir", str(run), "--steps", "0", "--bc-epochs", str(epochs), *SMALL])
        record = json.loads((run / "record.json").read_text())
        assert record["result"]["return"]["n"] == 1
        losses[epochs] = record["bc_loss"]
    assert losses[30] < 0.9 * losses[1]
    assert losses[30] < 0.33  # the variance of uniform actions, which a constant policy would leave


@pytest.mark.parametrize(
    "flags",
    [("--policy-rate", "1e30"), ("--disc-rate", "1e38", "--disc-updates", "8")],
    ids=["policy", "discriminator"],
)
def test_a_run_that_diverges_says_so(demos, tmp_path, capsys, flags):
    folder = tmp_path / "run"
    fails(capsys, ["--demos", demos, "--run-dir", folder, "--steps", "256", *SMALL, *flags], "diverged", flags[0])
    assert json.loads((folder / "record.json").read_text())["status"] == "diverged"
    tensors, _ = checkpoint.latest(folder)
    assert all(np.isfinite(np.asarray(value)).all() for value in tensors["policy"].values())


def test_a_run_that_was_extended_keeps_its_new_end(demos, tmp_path, capsys):
    folder = tmp_path / "run"
    cli.main(["--demos", str(demos), "--run-dir", str(folder), "--steps", "64", *SMALL])
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--resume", str(folder), "--steps", "1000000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: len((folder / "metrics.jsonl").read_bytes().splitlines()) > 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "interrupted"
    assert "result" not in record  # that of 64 steps is no longer this run's
    assert stored_args(Run.open(folder, kind="gail")).steps == 1_000_000
    assert stored_args(Run.open(folder, kind="gail"), steps=200).steps == 200


def test_of_two_environments_the_last_decides_the_settings():
    assert cli.parse(["--env", "HalfCheetah-v4", "--env", "Hopper-v4"]).settings.bc_epochs == 100


def test_flags_that_would_change_nothing_are_refused(demos, capsys):
    fails(capsys, ["--demos", demos, "--freeze-follower"], "--freeze-follower", "--l2l")
    anchored = ["--demos", demos, "--follower-anchored", "True"]
    fails(capsys, anchored, "--follower-anchored", "--l2l")
    fails(capsys, [*anchored, "--follower", "l2l-rate"], "--follower-anchored", "--follower l2l")
    fails(capsys, ["--demos", demos, "--score-penalty", "1"], "--score-penalty", "--l2l")
    fails(capsys, ["--l2l", "--follower", "adam"], "--l2l", "contradicts")
    fails(capsys, ["--demos", demos, "--gradient-penalty", "0", "--gradient-target", "0"], "--gradient-target")


def test_an_exported_filter_does_not_go_on_moving(demos, tmp_path):
    folder = tmp_path / "run"
    flags = ["--filter", "running", "--demos", str(demos), "--run-dir", str(folder), "--steps", "64"]
    cli.main([*flags, *SMALL])
    envs = VecNormalize.load(str(folder / "observation_filter.pkl"), make_envs("HalfCheetah-v4", 1, 0).venv)
    assert not envs.training
    record = json.loads((folder / "record.json").read_text())
    assert "sessions" not in record
    cli.main(["--resume", str(folder), "--steps", "128", "--demos", str(demos)])
    record = json.loads((folder / "record.json").read_text())
    assert [session["step"] for session in record["sessions"]] == [64]
    assert Run.open(folder, kind="gail").config["demos"] == str(demos.resolve())


def test_every_round_is_shown_to_the_alarm(demos, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Alarm, "__call__", lambda self, figures: seen.append(figures.get("disc/logit_std")))
    cli.main(["--demos", str(demos), "--run-dir", str(tmp_path / "run"), "--steps", "256", *SMALL])
    assert len([spread for spread in seen if spread is not None]) >= 4
