"""Imitate demonstrations from an .npz file: whatever recorded them, three arrays are enough."""

import gymnasium
import numpy as np

from l2l_gail.cli import main as train


def record(path, env_id, act, episodes=2):
    """Write what an expert `act(observation, step)` sees and does, until the time limit of each episode."""
    env = gymnasium.make(env_id)
    observations, actions, ends = [], [], []
    for episode in range(episodes):
        observations.append(env.reset(seed=episode)[0])
        for step in range(env.spec.max_episode_steps):
            actions.append(np.asarray(act(observations[-1], step), dtype=np.float32))
            observations.append(env.step(actions[-1])[0])
        ends.append(len(actions))  # an episode has one observation more than actions: where the last one led
    np.savez(path, observations=observations, actions=actions, episode_ends=ends)


def main(path="my_swimmer.npz", *flags):
    """Record a swimmer driven by sine waves, then train as scripts/train_gail.py does."""
    record(path, "Swimmer-v5", lambda _, step: np.sin(0.3 * step + np.array([0.0, 1.5])))
    train(["--env", "Swimmer-v5", "--demos", str(path), "--num-demos", "2", "--l2l", *flags])


if __name__ == "__main__":
    main()
