"""Imitate in an environment of your own: register it, and its id works like any other. Takes `record` and `train` from
own_demonstrations.py beside it."""

import gymnasium
import numpy as np
from own_demonstrations import record, train


class Track(gymnasium.Env):
    """A mass on a line that should rest at 0."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2)
        return self.state.copy(), {}

    def step(self, action):
        self.state = np.clip(self.state + 0.1 * np.array([self.state[1], action[0]]), -10, 10)
        return self.state.copy(), -float(self.state @ self.state), False, False, {}


gymnasium.register("Track-v0", entry_point=Track, max_episode_steps=100)

if __name__ == "__main__":
    record("track.npz", "Track-v0", lambda state, _: np.clip([-state[0] - 1.5 * state[1]], -1, 1))
    train(["--env", "Track-v0", "--demos", "track.npz", "--num-demos", "2", "--l2l"])
