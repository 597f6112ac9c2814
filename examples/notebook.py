"""Both tools from Python, as in a notebook: imitate arrays in an environment object; load a robust classifier."""

import gymnasium as gym
import numpy as np

import l2l_at
from l2l_gail import GAIL, load_demonstrations, tuned


def imitate(observations, actions, episode_ends, steps=100_000):
    make_env = lambda: gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1))  # noqa: E731
    arrays = {"observations": observations, "actions": actions, "episode_ends": episode_ends}
    gail = GAIL(make_env, load_demonstrations(arrays, make_env), config=tuned("Pendulum-v1")).learn(steps)
    return gail, gail.predict(observations[:5], deterministic=True)[0]


def classify(run, images):
    return l2l_at.load(run)(images).argmax(1)
