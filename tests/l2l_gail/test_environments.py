"""Environments: what is refused, one filter for all, and a state that is exact."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from l2l_experiment.errors import UserError
from l2l_gail import environments, evaluation
from l2l_gail.config import GAILConfig
from l2l_gail.notes import notes


@pytest.mark.parametrize(("name", "word"), [("NoSuchTask-v0", "NoSuchTask"), ("CartPole-v1", "Box")])
def test_unusable_environments_are_refused(name, word):
    with pytest.raises(UserError, match=word):
        environments.check(name)


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4"])
def test_state_continues_bit_by_bit(name):
    envs, other = (environments.make_envs(name, 2, seed) for seed in (0, 9))
    draw = np.random.default_rng(0)
    actions = draw.uniform(-1, 1, size=(60, 2, envs.action_space.shape[0])).astype(np.float32)
    envs.reset()
    for action in actions[:20]:
        envs.step(action)
    assert environments.restore(other, *environments.state(envs))
    for action in actions[20:]:  # Hopper and Walker2d fall and are reset on the way
        for one, two in zip(envs.step(action), other.step(action), strict=True):
            if isinstance(one, np.ndarray):
                np.testing.assert_array_equal(one, two)
            else:
                assert [i.get("episode", {}).get("r") for i in one] == [i.get("episode", {}).get("r") for i in two]


def test_time_limit_is_part_of_the_state():
    envs, other = (environments.make_envs("HalfCheetah-v4", 1, 0) for _ in range(2))
    envs.reset()
    action = np.zeros((1, 6), dtype=np.float32)
    for _ in range(995):
        envs.step(action)
    environments.restore(other, *environments.state(envs))
    dones = [bool(other.step(action)[2][0]) for _ in range(5)]
    assert dones == [False] * 4 + [True]


def test_other_kinds_of_environment_are_reset_and_say_so():
    envs, other = (environments.make_envs("Pendulum-v1", 2, 0) for _ in range(2))
    envs.reset()
    assert not environments.restore(other, *environments.state(envs))


def test_seeds_reproduce_and_differ():
    first = [environments.make_envs("HalfCheetah-v4", 2, seed).reset() for seed in (1, 1, 2)]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


class Endless(gym.Env):
    """Never ends, and takes actions between 0 and 50."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float64)
    action_space = gym.spaces.Box(0, 50, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        return np.zeros(1), 1.0, False, False, {}


@pytest.fixture
def endless():
    gym.register("Endless-v0", entry_point=Endless)
    yield "Endless-v0"
    del gym.registry["Endless-v0"]


def test_an_environment_without_a_time_limit_is_given_one(endless):
    assert evaluation.random_returns(endless, episodes=2).tolist() == [environments.STEP_LIMIT] * 2
    assert environments.make("HalfCheetah-v4").spec.max_episode_steps == 1000


def test_what_is_unusual_about_a_task_is_said(endless):
    limit, actions = notes(replace(GAILConfig(), env=endless, reward="constant"))
    assert "without a time limit" in limit
    assert "0 to 50" in actions
    assert not notes(GAILConfig())
    assert "may end early" in notes(replace(GAILConfig(), env="Hopper-v4"))[0]
    assert "standard deviation of 20" in notes(replace(GAILConfig(), log_std_init=3.0))[0]
