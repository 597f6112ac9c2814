"""The command line: what flags mean, and one sentence for every mistake."""

import pytest

from l2l_gail.cli import main, parse


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ("", {"env": "HalfCheetah-v4", "follower": "adam", "bc_epochs": 0}),
        ("--env HalfCheetah-v4 --env Hopper-v4", {"env": "Hopper-v4", "bc_epochs": 100}),
        ("--l2l --no-normalize-reward", {"follower": "l2l", "score_penalty": 1.0, "normalize_reward": False}),
        ("--follower l2l --net-arch 8 4 --log-rate-limit 4", {"net_arch": (8, 4), "log_rate_limit": 4.0}),
    ],
)
def test_flags_stand_over_the_tuned_settings_of_the_environment(flags, settings):
    found = parse(flags.split()).settings
    assert {name: getattr(found, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--env Hopper-v4", "demos.npz 11"),
        ("--num-demos 4", "--num-demos 4 3"),
        ("--l2l --follower-steps 3", "--follower-steps"),
        ("--l2l --follower adam", "--l2l contradicts adam"),
        ("--follower prodigy --l2l", "--l2l contradicts prodigy"),
        ("--freeze-follower", "--freeze-follower --follower adam"),
        ("--follower nobody", "--follower adam l2l l2l-rate"),
        ("--l2l --follower-from nowhere --num-demos 2", "nowhere"),
        ("--n-envs 1 --n-steps 1", "2 transitions"),
        ("--reward-from nowhere --num-demos 2", "no checkpoint nowhere"),
        ("--reward-from nowhere --l2l --disc-updates 5", "--disc-updates --follower --reward-from"),
        ("--leader sac --n-epochs 3", "--n-epochs --leader sac"),
        ("--learning-starts 5", "--learning-starts --leader ppo"),
    ],
)
def test_mistakes_get_one_sentence_and_leave_nothing_behind(demos, tmp_path, refused, flags, words):
    refused(main, ["--demos", demos, "--run-dir", tmp_path / "run", *flags.split()], *words.split())
    assert not (tmp_path / "run").exists()


def test_a_policy_on_a_kept_reward_is_not_cloned_unless_it_has_demonstrations(refused):
    """The tuned settings of Hopper-v4 clone, and PPO's of an environment do not hold for SAC."""
    assert parse(["--env", "Hopper-v4", "--reward-from", "x"]).settings.bc_epochs == 0
    assert parse(["--env", "Hopper-v4", "--reward-from", "x", "--demos", "y"]).settings.bc_epochs == 100
    assert parse(["--reward-from", "x", "--demos", "y", "--bc-epochs", "5", "--every", "20"]).settings.every == 20
    refused(main, ["--reward-from", "x", "--every", "20"], "--every would change nothing with --reward-from")
    refused(main, ["--reward-from", "x", "--bc-epochs", "5"], "--bc-epochs would change nothing with --reward-from")


def test_paths_are_absolute_so_that_a_sweep_knows_its_runs_again(demos, monkeypatch):
    monkeypatch.chdir(demos.parent)
    assert parse(["--demos", demos.name]).demos == str(demos)
    assert parse(["--demos", "mujoco/hopper/expert-v0"]).demos == "mujoco/hopper/expert-v0"


def test_an_environment_without_demonstrations_is_named(refused):
    refused(main, ["--env", "Swimmer-v4"], "no demonstrations ship for Swimmer-v4")
