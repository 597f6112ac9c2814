"""Environments: what is refused, limits of time, and a state that is exact."""

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv

from l2l_experiment.errors import UserError
from l2l_gail import Environment, environment_state, environments


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Hopper-v4", "Ant-v4"])
def test_state_continues_bit_by_bit(name):
    envs, other = (Environment(name).vectorised(2, seed) for seed in (0, 9))
    draw = np.random.default_rng(0)
    actions = draw.uniform(-1, 1, size=(60, 2, envs.action_space.shape[0])).astype(np.float32)
    envs.reset()
    for action in actions[:20]:
        envs.step(action)
    assert environment_state.load_state_dict(other, environment_state.state_dict(envs))
    for action in actions[20:]:  # Hopper falls and is reset on the way
        for one, two in zip(envs.step(action), other.step(action), strict=True):
            if not isinstance(one, np.ndarray):  # the returns of episodes that end
                one, two = ([info.get("episode", {}).get("r", 0) for info in infos] for infos in (one, two))
            np.testing.assert_array_equal(one, two)


def test_time_limit_is_part_of_the_state():
    envs, other = (Environment("HalfCheetah-v4").vectorised(1, 0) for _ in range(2))
    envs.reset()
    action = np.zeros((1, 6), dtype=np.float32)
    for _ in range(995):
        envs.step(action)
    environment_state.load_state_dict(other, environment_state.state_dict(envs))
    assert [bool(other.step(action)[2][0]) for _ in range(5)] == [False] * 4 + [True]


class Own(PendulumEnv):
    """An environment of somebody's own, which may keep more than is known."""


def own():
    return gym.wrappers.TimeLimit(Own(), 200)


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
)
def test_classic_control_continues_bit_by_bit(name):
    envs, other = (Environment(name).vectorised(2, seed) for seed in (0, 9))
    actions, draw = Environment(name).actions, np.random.default_rng(0)
    envs.reset()
    for _ in range(30):
        envs.step(actions.uniform(draw, 2))
    assert environment_state.load_state_dict(other, environment_state.state_dict(envs))
    for _ in range(250):
        action = actions.uniform(draw, 2)
        for one, two in zip(envs.step(action)[:3], other.step(action)[:3], strict=True):
            np.testing.assert_array_equal(one, two)


def test_other_kinds_of_environment_are_reset_and_say_so():
    envs, other = (Environment(own).vectorised(2, 0) for _ in range(2))
    envs.reset()
    assert not environment_state.load_state_dict(other, environment_state.state_dict(envs))
    with pytest.raises(UserError, match="holds 2 environments, this run has 1"):
        environment_state.load_state_dict(
            Environment("Pendulum-v1").vectorised(1, 0), environment_state.state_dict(envs)
        )


class WithTarget(HalfCheetahEnv):
    """Draws at its reset what its physics does not hold."""

    def reset_model(self):
        self.target = self.np_random.uniform()
        return super().reset_model()


def half_cheetah(wrap=lambda env: env):
    return lambda: wrap(gym.make("HalfCheetah-v4", max_episode_steps=100))


@pytest.mark.parametrize(
    ("source", "exact"),
    [
        (half_cheetah(), True),
        (half_cheetah(lambda env: wrappers.RescaleAction(env, -2.0, 2.0)), True),
        (half_cheetah(lambda env: wrappers.FlattenObservation(wrappers.FrameStackObservation(env, 3))), False),
        (half_cheetah(wrappers.TimeAwareObservation), False),
        (half_cheetah(lambda env: wrappers.StickyAction(env, 0.5)), False),
        (half_cheetah(wrappers.NormalizeObservation), False),
        (half_cheetah(lambda env: wrappers.TransformObservation(env, lambda seen: seen, None)), False),
        (lambda: WithTarget(), False),
    ],
)
def test_what_may_keep_a_state_of_its_own_is_reset_and_says_so(source, exact):
    envs, other = (Environment(source).vectorised(1, 0) for _ in range(2))
    envs.reset()
    envs.step(np.zeros((1, 6), dtype=np.float32))
    assert environment_state.load_state_dict(other, environment_state.state_dict(envs)) == exact


@pytest.mark.parametrize("generator", [np.random.RandomState(0), np.random.Generator(np.random.MT19937(0))])
def test_a_generator_of_another_kind_starts_anew(generator):
    envs, other = (Environment(half_cheetah()).vectorised(1, 0) for _ in range(2))
    envs.reset()
    envs.unwrapped.envs[0].unwrapped.np_random = generator
    tree = environment_state.state_dict(envs)
    assert tree["envs"][0]["rng"] is None
    assert not environment_state.load_state_dict(other, tree)


def test_an_environment_without_a_time_limit_is_given_one(monkeypatch):
    spec = gym.envs.registration.EnvSpec("Endless-v0", entry_point=PendulumEnv)  # its limit is that of Pendulum-v1
    monkeypatch.setitem(gym.registry, "Endless-v0", spec)
    for source in ("Endless-v0", PendulumEnv):
        env = Environment(source).make()
        env.reset()
        steps = next(step for step in range(1, 20_000) if any(env.step(np.ones(1))[2:4]))
        assert steps == environments.STEP_LIMIT
    assert Environment("Endless-v0").unlimited
    assert not Environment("HalfCheetah-v4").unlimited


@pytest.mark.slow
def test_a_wrong_drawing_library_is_one_sentence():
    """MuJoCo reads MUJOCO_GL when it is imported, also where nothing is drawn."""
    make = "from l2l_gail import Environment; Environment('Pendulum-v1')"
    done = subprocess.run(
        [sys.executable, "-c", make], env={**os.environ, "MUJOCO_GL": "foo"}, capture_output=True, text=True
    )
    assert "UserError: MuJoCo cannot be imported" in done.stderr
    assert "MUJOCO_GL is 'foo': unset it" in done.stderr
