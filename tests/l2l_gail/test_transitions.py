"""Transitions of demonstrations: in order, held out by whole stretches, and known again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from l2l_experiment.errors import UserError
from l2l_gail.transitions import split, transitions_of, update_replay
from tests.l2l_gail.conftest import make_demonstrations


def test_each_action_stands_between_the_observations_around_it(demonstrations):
    ending = replace(demonstrations.episodes[1], terminated=True, truncated=False)
    whole = transitions_of(replace(demonstrations, episodes=[demonstrations.episodes[0], ending]))
    assert len(whole) == 24
    np.testing.assert_array_equal(whole.observations[12:], ending.observations[:-1])
    np.testing.assert_array_equal(whole.next_observations[12:], ending.observations[1:])
    np.testing.assert_array_equal(whole.actions[12:], ending.actions)
    assert np.flatnonzero(whole.ended).tolist() == [23]  # a time limit is no end
    assert {part.dtype for part in whole.float32().parts()} == {np.dtype(np.float32), np.dtype(bool)}


def test_the_end_of_every_episode_is_held_out_and_every_tenth_transition_kept_if_asked():
    demonstrations = make_demonstrations(3, 2, episodes=2)
    train, held = split(demonstrations, 0.25)
    first = demonstrations.episodes[0]
    np.testing.assert_array_equal(train.observations[:30], first.observations[:30])
    np.testing.assert_array_equal(held.actions[:10], first.actions[30:])
    np.testing.assert_array_equal(held.next_observations[9], first.observations[40])
    assert (len(train), len(held)) == (60, 20)
    assert [len(part) for part in split(demonstrations, 0.0)] == [80, 80]
    with pytest.raises(UserError, match="too few"):
        split(make_demonstrations(3, 2, length=1), 0.25)
    train, held = split(demonstrations, 0.25, every=10)
    for part, rows in ((train, [0, 10, 20]), (held, [30])):
        both = [episode.observations[np.array(rows) + 1] for episode in demonstrations.episodes]
        np.testing.assert_array_equal(part.next_observations, np.concatenate(both))
    assert len(transitions_of(demonstrations, every=40)) == 2


@pytest.mark.parametrize(("holdout", "every"), [(0.25, 1), (0.25, 7), (0.0, 7), (0.25, 100)])
def test_an_end_is_in_both_parts_if_asked_and_a_time_limit_is_none(holdout, every):
    """Else a learned rule would be trained on demonstrations of which none ever ends."""
    made = make_demonstrations(3, 2, episodes=5, length=40)
    episodes = [replace(episode, terminated=i > 0, truncated=i == 0) for i, episode in enumerate(made.episodes)]
    demonstrations = replace(made, episodes=episodes)
    for part in split(demonstrations, holdout, every, ends=True):
        last = [episode.observations[40] for episode in episodes[1:]]
        np.testing.assert_array_equal(part.next_observations[part.ended], last)
        assert len(np.unique(part.next_observations, axis=0)) == len(part)  # none is there twice
    without = split(demonstrations, holdout, every)
    assert not without[0].ended.any() or holdout == 0


@pytest.mark.parametrize("counted", [True, False])
def test_kept_rounds_are_a_uniform_sample_of_all_or_the_newest(counted):
    counts, generator = np.zeros(8), torch.Generator().manual_seed(0)
    for kind in ("newest", "uniform"):
        for _ in range(400):
            kept = []
            for number in range(1, 9):
                update_replay(kept, number, 2, kind, number if counted else 0, generator)
            assert len(set(kept)) == 2
            if kind == "newest":
                assert kept == [7, 8]
            counts[[number - 1 for number in kept]] += kind == "uniform"
    if counted:
        np.testing.assert_allclose(counts, 100, atol=35)  # four standard deviations
    else:  # as in a second run, whose steps are counted anew: each new round takes the place of either
        np.testing.assert_allclose(counts[4:], 400 * 0.5 ** np.arange(3, -1, -1), atol=40)
