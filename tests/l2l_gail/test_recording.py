"""Tests of recording: which episodes are kept, and when playing stops."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from l2l_experiment.errors import UserError
from l2l_gail.recording import play


class Counter(gymnasium.Env):
    """Ends after as many steps as its seed's last digit says, reward 1 each."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.left = seed % 10
        return np.array([float(self.left)]), {}

    def step(self, action):
        self.left -= 1
        return np.array([float(self.left)]), 1.0, self.left == 0, False, {}


def test_playing_keeps_what_the_rule_allows():
    played = play(Counter(), lambda o: np.zeros(1), episodes=3, first_seed=3, min_return=5)
    assert played.seeds == [5, 6, 7]
    assert played.dropped == [3.0, 4.0]
    assert [len(e) for e in played.episodes] == [5, 6, 7]
    assert played.episodes[0].terminated
    np.testing.assert_array_equal(played.episodes[0].observations[:, 0], [5, 4, 3, 2, 1, 0])


def test_playing_stops_when_more_than_half_would_be_dropped():
    with pytest.raises(UserError, match="3 of 3 episodes returned less than 9"):
        play(Counter(), lambda o: np.zeros(1), episodes=2, first_seed=1, min_return=9)
