"""Imitate from pixels: CartPole-v1 drawn in grey frames of 42 x 42, the last three at a time."""

import gymnasium
import numpy as np
from gymnasium import spaces, wrappers
from gymnasium.envs.classic_control import CartPoleEnv

from l2l_gail.cli import main as train

GRID = (np.arange(42) + 0.5) / 21 - 1  # the middles of pixels, from -1 to 1


def draw(state):
    """The cart is a bar at the bottom, in its place; the pole is a line from it that leans three times as far."""
    across, up, lean = GRID - state[0] / 2.4, 0.5 - GRID[:, None] / 2, 3 * state[2]
    pole = np.clip(1.5 - np.abs(across * np.cos(lean) - up * np.sin(lean)) * 21, 0, 1) * (up > 0.1)
    cart = np.clip(6 - np.abs(across) * 21, 0, 1) * (up <= 0.1)
    return (255 * np.maximum(pole, cart)).astype(np.uint8)


def make(**kwargs):
    space = spaces.Box(0, 255, (42, 42), np.uint8)
    return wrappers.FrameStackObservation(wrappers.TransformObservation(CartPoleEnv(**kwargs), draw, space), 3)


gymnasium.register("CartPolePixels-v0", entry_point=make, max_episode_steps=500)


def record(path, env, episodes=2):  # of an expert that looks at the state and pushes the cart under the pole
    observations, actions = [], []
    for seed in range(episodes):
        observations.append(env.reset(seed=seed)[0])
        for _ in range(500):
            actions.append(int(env.unwrapped.state @ [0.05, 0.1, 1.0, 0.3] > 0))
            observations.append(env.step(actions[-1])[0])
    ends = {"rewards": np.ones(len(actions)), "episode_ends": 500 * np.arange(1, episodes + 1)}
    np.savez_compressed(path, observations=observations, actions=actions, **ends)


if __name__ == "__main__":
    record("pixels.npz", gymnasium.make("CartPolePixels-v0"))
    train(["--env", "CartPolePixels-v0", "--demos", "pixels.npz", "--num-demos", "1", "--l2l", "--steps", "40000"])
