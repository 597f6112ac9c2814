"""GAIL learns: a small task in which nothing but the discriminator can tell the policy what to do."""

import gymnasium as gym
import numpy as np
import pytest

from l2l_gail import GAIL, GAILConfig


def wanted(observations):
    """What the expert does."""
    return 0.8 * observations[..., :2] * np.array([1, -1])


class Echo(gym.Env):
    """Observations move by chance, whatever the action is, and so say nothing of what is wanted."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1, 1, 3)
        return self.seen, {}

    def step(self, action):
        error = float(np.abs(action - wanted(self.seen)).mean())
        self.seen = 0.5 * self.seen + 0.5 * self.np_random.uniform(-1, 1, 3)
        return self.seen, -error, False, False, {}


def demonstrated():
    env = Echo()
    observations = np.array([env.reset(seed=0)[0], *(env.step(np.zeros(2))[0] for _ in range(399))])
    return {"observations": observations, "actions": wanted(observations), "episode_ends": 50 * np.arange(1, 9)}


@pytest.mark.parametrize(
    ("follower", "reward", "learns"),
    [
        ("l2l", "airl", True),
        pytest.param("adam", "gail", True, marks=pytest.mark.slow),
        pytest.param("adam", "constant", False, marks=pytest.mark.slow),
    ],
)
def test_the_policy_comes_to_do_what_was_demonstrated(follower, reward, learns):
    small = {"n_envs": 4, "n_steps": 128, "batch_size": 64, "n_epochs": 5, "net_arch": (32, 32), "gamma": 0.5}
    small |= {"disc_hidden": (32, 32), "disc_batch_size": 64, "disc_updates": 10, "gradient_penalty": 0.1}
    rates = {"learning_rate": 1e-3, "disc_learning_rate": 1e-2, "log_std_init": -1.0}
    config = GAILConfig(follower=follower, reward=reward, **small, **rates)
    gail = GAIL(lambda: gym.wrappers.TimeLimit(Echo(), 50), demonstrated(), config=config)
    new = np.random.default_rng(5).uniform(-1, 1, (500, 3))

    def error():
        return float(np.abs(gail.predict(new, deterministic=True)[0] - wanted(new)).mean())

    start = error()
    assert 0.38 < start < 0.42  # 0.4 is the error of doing nothing
    gail.learn(6_144 if learns else 3_072)
    assert error() < 0.6 * start if learns else error() > 0.85 * start
