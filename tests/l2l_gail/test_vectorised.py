"""Environments in this process, in processes of their own, and in EnvPool: the same tasks."""

import os
import sys
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from l2l_experiment.errors import UserError
from l2l_gail import GAIL, Environment, GAILConfig, environment_state
from l2l_gail.vectorised import vectorise
from tests.l2l_gail.conftest import SMALL, make_demonstrations


def play(envs, count, seed=0):
    """All that so many steps of random actions return."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(count):
        actions = draw.uniform(-1, 1, (envs.num_envs, *envs.action_space.shape)).astype(np.float32)
        observations, rewards, dones, infos = envs.step(actions)
        returns = [info.get("episode", {}).get("r", 0.0) for info in infos]
        found.append(np.concatenate([observations.ravel(), rewards, dones, returns]))
    return np.array(found)


@pytest.fixture(scope="module")
def subproc():
    envs = Environment("Hopper-v4").vectorised(2, 0, "subproc")
    yield envs
    envs.close()


@pytest.mark.slow
def test_processes_of_their_own_step_equally(subproc):
    here = Environment("Hopper-v4").vectorised(2, 0)
    np.testing.assert_array_equal(here.reset(), subproc.reset())
    np.testing.assert_array_equal(play(here, 100), play(subproc, 100))
    if hasattr(os, "getsid"):  # signals of the terminal do not reach them
        assert os.getsid(subproc.unwrapped.processes[0].pid) != os.getsid(0)


def test_processes_of_their_own_continue_bit_by_bit(subproc):
    here = Environment("Hopper-v4").vectorised(2, 9)
    subproc.reset()
    play(subproc, 50)
    kept = environment_state.state_dict(subproc)
    after = play(subproc, 80, seed=1)
    for envs in (here, subproc):
        assert environment_state.load_state_dict(envs, kept)
        np.testing.assert_array_equal(after, play(envs, 80, seed=1))


@pytest.mark.slow
def test_a_run_in_processes_of_their_own_is_the_same_run(tmp_path):
    config, demonstrations = GAILConfig(env="Hopper-v4", **SMALL), make_demonstrations(11, 3)
    found = []
    for vec in ("sync", "subproc"):
        run = GAIL("Hopper-v4", demonstrations, config=replace(config, vec=vec)).learn(128)
        run.save(tmp_path / vec)
        run.envs.close()
        found.append(torch.cat([w.detach().ravel() for w in run.discriminator.parameters()]))
    assert torch.equal(*found)
    loaded = GAIL.load(tmp_path / "subproc")  # to be watched: that needs no processes
    assert isinstance(loaded.envs.unwrapped, DummyVecEnv)


@pytest.mark.slow
def test_another_process_knows_what_this_program_has_registered():
    gym.register("Registered-v0", entry_point=lambda: gym.make("Pendulum-v1").unwrapped, max_episode_steps=7)
    envs = Environment("Registered-v0").vectorised(1, 0, "subproc")
    envs.reset()
    dones = [envs.step(np.zeros((1, 1), dtype=np.float32))[2][0] for _ in range(7)]
    envs.close()
    assert dones == [False] * 6 + [True]

    def fails():
        raise RuntimeError("no licence")

    with pytest.raises(UserError, match="failed in its own process"):
        vectorise(fails, None, 1, 0, "subproc")


class Counting:
    """Stands in for one of EnvPool's: observations count the steps of an episode, which an action of 2 ends early."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,))
    action_space = spaces.Box(-2.0, 2.0, (1,))

    def __init__(self, num_envs, max_episode_steps):
        self.steps, self.limit = np.zeros(num_envs), max_episode_steps

    def reset(self, chosen=slice(None)):
        self.steps[chosen] = 0
        return self.seen()[chosen], {}

    def seen(self):
        return np.repeat(self.steps[:, None], 3, 1)

    def step(self, actions):
        self.steps += 1
        return self.seen(), np.ones(len(self.steps)), actions[:, 0] == 2, self.steps >= self.limit, {}

    def close(self):
        pass


@pytest.fixture
def counting(monkeypatch):
    def made(name, *, num_envs, seed, num_threads, max_episode_steps):
        assert (name, seed, num_threads) == ("Pendulum-v1", 5, min(num_envs, os.cpu_count()))
        return Counting(num_envs, max_episode_steps)

    monkeypatch.setitem(
        sys.modules,
        "envpool",
        SimpleNamespace(list_all_envs=lambda: ["Pendulum-v1", "CartPole-v1"], make_gymnasium=made),
    )


def test_episodes_of_a_pool_end_and_begin_as_stable_baselines_has_it(counting):
    envs = Environment("Pendulum-v1").vectorised(2, 5, "envpool")
    envs.norm_obs = False
    envs.reset()
    seen, _, dones, infos = envs.step(np.array([[1.0], [0.0]]))  # 1 is rescaled to 2
    np.testing.assert_array_equal(dones, [True, False])
    np.testing.assert_array_equal(seen, [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(infos[0]["last_observation"], [1, 1, 1])
    assert not infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"]["r"] == infos[0]["episode"]["l"] == 1
    for _ in range(199):
        seen, _, dones, infos = envs.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(dones, [False, True])  # after 199 and after 200 steps, Pendulum's limit
    assert infos[1]["TimeLimit.truncated"]
    np.testing.assert_array_equal(seen, [[199] * 3, [0] * 3])
    assert infos[1]["episode"]["l"] == 200
    assert not environment_state.load_state_dict(envs, environment_state.state_dict(envs))


def test_what_a_pool_cannot_do_is_refused(counting, monkeypatch):
    for source, told in [("Hopper-v4", "no environment Hopper-v4"), (lambda: gym.make("Pendulum-v1"), "needs an id")]:
        with pytest.raises(UserError, match=told):
            Environment(source).vectorised(2, 5, "envpool")
    monkeypatch.setattr(Counting, "observation_space", spaces.Box(-1, 1, (4,)))
    with pytest.raises(UserError, match="differs from Gymnasium's"):
        Environment("Pendulum-v1").vectorised(2, 5, "envpool")
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match="pip install"):
        Environment("Pendulum-v1").vectorised(2, 5, "envpool")
    given = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    with pytest.raises(UserError, match="a VecEnv steps itself"):
        Environment(given).vectorised(1, 0, "subproc")


@pytest.mark.parametrize("name", ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v4"])
def test_envpool_steps_like_gymnasium(name):
    pytest.importorskip("envpool")
    envs, own = Environment(name).vectorised(2, 0, "envpool"), gym.make(name).unwrapped
    envs.reset()
    own.reset(seed=0)
    draw, ended, compared, positions = np.random.default_rng(0), 0, 0, own.model.nq
    for _ in range(300):
        before = envs.get_original_obs()[0].astype(float)
        actions = draw.uniform(-1, 1, (2, own.action_space.shape[0])).astype(np.float32)
        own.set_state(np.concatenate([[0.0], before[: positions - 1]]), before[positions - 1 :])
        expected, reward, over, *_ = own.step(actions[0])
        _, rewards, dones, infos = envs.step(actions)
        after = infos[0]["last_observation"] if dones[0] else envs.get_original_obs()[0]
        ended += dones[0]
        if np.abs(before[positions - 1 :]).max() < 9.9:  # Hopper and Walker2d clip the velocities that they show to 10
            compared += 1
            np.testing.assert_allclose(after, expected, rtol=0, atol=1e-9)
            np.testing.assert_allclose(rewards[0], reward, rtol=0, atol=1e-5)
            assert dones[0] == over
    assert compared > 50
    assert (ended > 3) == (name != "HalfCheetah-v4")


def test_a_run_with_envpool_learns_and_goes_on(tmp_path):
    pytest.importorskip("envpool")
    config, demonstrations = GAILConfig(env="Hopper-v4", vec="envpool", **SMALL), make_demonstrations(11, 3)
    GAIL("Hopper-v4", demonstrations, config=config).learn(128).save(tmp_path)
    assert GAIL.load(tmp_path, demonstrations).learn(64, reset_num_timesteps=False).num_timesteps == 192
