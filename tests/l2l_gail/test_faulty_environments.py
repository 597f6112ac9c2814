"""Environments that misbehave: the fault is named, or the run goes on, and nothing is wrong in silence."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box

from l2l_experiment.errors import UserError
from l2l_gail import GAIL, Environment, evaluation
from l2l_gail.cli import main
from l2l_gail.demonstrations import Episode, save_npz
from l2l_gail.experts.cli import main as make_expert_data
from l2l_gail.play import main as play
from l2l_gail.transitions import split
from tests.l2l_gail.conftest import make_demonstrations


class Faulty(gym.Env):
    """Twenty steps, with something wrong at the seventh."""

    observation_space, action_space = Box(-np.inf, np.inf, (3,), np.float64), Box(-1, 1, (2,), np.float32)
    bad_observation, bad_reward, length = 0.0, 0.0, 20

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        return self.np_random.normal(size=3), {}

    def step(self, action):
        self.step_count += 1
        seen, fault = self.np_random.normal(size=3), self.step_count == 7
        if fault:
            seen[1] += self.bad_observation
        return seen, 1.0 + fault * self.bad_reward, self.step_count == self.length, False, {}


class SeesNaN(Faulty):
    bad_observation = np.nan


class SeesTooMuch(Faulty):
    bad_observation = -1e39


class PaysNaN(Faulty):
    bad_reward = np.nan


class OneStep(Faulty):
    length = 1


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for kind in (SeesNaN, SeesTooMuch, PaysNaN, OneStep):
        spec = gym.envs.registration.EnvSpec(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=50)
        monkeypatch.setitem(gym.registry, spec.id, spec)


@pytest.fixture
def flags(flags, tmp_path):
    return [*flags, "--demos", str(save_npz(tmp_path / "three.npz", make_demonstrations(3, 2)))]


@pytest.mark.parametrize("kind", [SeesNaN, SeesTooMuch])
def test_an_observation_that_no_network_can_use_is_the_environments_fault(kind, flags, refused, tmp_path, config):
    told = (f"{kind.__name__}-v0 returned an observation", "component 1 at step 7", "not the policy")
    refused(main, ["--env", f"{kind.__name__}-v0", "--steps", "256", *flags, "--run-dir", tmp_path / "a"], *told)
    quick = ["--steps=256", "--n-envs=2", "--n-steps=32", "--batch-size=32", "--episodes=1"]
    folders = ["--out", tmp_path / "data", "--run-dir", tmp_path / "b"]
    refused(make_expert_data, ["--env", f"{kind.__name__}-v0", *quick, *folders], *told)
    with pytest.raises(UserError, match="component 1 at step 7"):
        evaluation.random_returns(Environment(kind), episodes=1)
    with pytest.raises(UserError, match="component 1 at step 7"):
        Episode.rollout(kind(), lambda seen: np.zeros(2), seed=0)


def test_a_true_reward_that_is_nan_is_only_not_known(flags, tmp_path, capsys, refused):
    folder = tmp_path / "a"
    main(["--env", "PaysNaN-v0", "--steps", "256", *flags, "--run-dir", str(folder)])
    assert "reward is NaN or infinite, so there is no return" in capsys.readouterr().out
    record = json.loads((folder / "record.json").read_text())
    assert (record["status"], record["result"]["return"]["mean"]) == ("finished", None)
    main(["--resume", str(folder), "--steps", "320"])
    quick = ["--steps=256", "--n-envs=2", "--n-steps=32", "--batch-size=32", "--episodes=1"]
    refused(
        make_expert_data,
        ["--env", "PaysNaN-v0", *quick, "--out", tmp_path / "data", "--run-dir", tmp_path / "b"],
        "reward may be NaN",
    )


def test_episodes_of_one_step_are_used_and_held_out_whole(flags, tmp_path):
    single = make_demonstrations(3, 2, episodes=8, length=1)
    train, held = split(single, 0.25)
    assert (len(train), len(held)) == (6, 2)
    with pytest.raises(UserError, match="2 transitions of demonstrations are too few"):
        split(make_demonstrations(3, 2, episodes=2, length=1), 0.25)
    flat = {"observations": np.zeros((8, 3)), "actions": np.zeros((8, 2)), "dones": np.ones(8)}  # as many of both
    np.savez(tmp_path / "flat.npz", **flat)
    one = ["--env", "OneStep-v0", "--steps", "128", *flags, "--num-demos", "8"]
    main([*one, "--demos", str(tmp_path / "flat.npz"), "--run-dir", str(tmp_path / "a"), "--l2l"])


def test_whole_numbers_in_a_box_are_refused():
    class Integers(Faulty):
        action_space = Box(-3, 3, (2,), np.int64)

    with pytest.raises(UserError, match="whole numbers.*fractions"):
        Environment(Integers)

    class Square(Faulty):
        action_space = Box(-1, 1, (2, 2), np.float32)

    with pytest.raises(UserError, match="one-dimensional"):
        Environment(Square)


def test_a_strangers_run_imports_no_module_that_nobody_named(flags, tmp_path, refused, capsys):
    folder, name = tmp_path / "a", "tests.l2l_gail.test_faulty_environments:OneStep-v0"
    main(["--env", name, "--steps", "64", *flags, "--run-dir", str(folder)])
    told = "imports the module tests.l2l_gail.test_faulty_environments"
    refused(main, ["--resume", folder, "--steps", "128"], told, f"--env {name}")
    refused(play, [folder], told)
    with pytest.raises(UserError, match=told):
        GAIL.load(folder)
    assert GAIL.load(folder, env=name).num_timesteps == 64
    refused(main, ["--resume", folder, "--env", "OneStep-v0"], told)
    main(["--resume", str(folder), "--env", name, "--steps", "128"])
