"""Spaces: observations of any kind as arrays, as Gymnasium flattens them; actions of any kind, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from hypothesis import given
from hypothesis import strategies as st

from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig
from l2l_gail.discriminator import make_discriminator
from l2l_gail.inputs import AWAY, Inputs
from l2l_gail.spaces import Observations, actions_of
from l2l_gail.transitions import Transitions

UNIT = actions_of(Box(-1.0, 1.0, (2,), np.float32), "Task")
NESTED = Dict({"b": Box(-1, 1, (2, 2)), "a": Discrete(3, start=1), "c": Tuple((MultiBinary(2), MultiDiscrete([2, 3])))})
VECTORS = [Box(-1, 1, (3,)), Box(-1, 1, (2, 3)), Discrete(4, start=-1), MultiBinary(3), MultiDiscrete([2, 3]), NESTED]


def stacked(space, values):
    """A batch of values, as SB3 and Minari have them."""
    if isinstance(space, Dict):
        return {key: stacked(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(stacked(part, [value[i] for value in values]) for i, part in enumerate(space.spaces))
    return np.array(values)


@pytest.mark.parametrize("space", VECTORS, ids=str)
def test_observations_are_flattened_as_gymnasium_does(space):
    space.seed(0)
    values, observations = [space.sample() for _ in range(20)], Observations(space, "Task")
    expected = np.array([spaces.flatten(space, value) for value in values])
    batch = observations.convert(stacked(space, values), "here")
    np.testing.assert_array_equal(batch, expected)
    np.testing.assert_array_equal(observations.convert(batch, "here"), expected)  # what is converted stays
    np.testing.assert_array_equal(observations.convert_one(values[3]), expected[3])
    assert (observations.size, observations.features(batch).shape) == (expected.shape[1], expected.shape)
    assert observations.is_single(values[0])
    assert not observations.is_single(batch)


@pytest.mark.parametrize(
    ("shape", "after"), [((40, 42, 3), (3, 40, 42)), ((2, 40, 42), (2, 40, 42)), ((40, 42), (1, 40, 42))]
)
def test_images_come_channels_first_and_scaled(shape, after):
    observations = Observations(Box(0, 255, shape, np.uint8), "Task")
    frames = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    seen = observations.convert(frames, "here")
    assert observations.image
    assert seen.shape == (5, *after)
    assert observations.features(seen).max() <= 1
    np.testing.assert_array_equal(observations.convert(seen, "here"), seen)
    np.testing.assert_array_equal(np.sort(seen, axis=None), np.sort(frames, axis=None))
    if len(shape) == 3 and shape != after:
        np.testing.assert_array_equal(seen[:, 1], frames[..., 1])


@pytest.mark.parametrize("imitate", ["pairs", "states"])
@pytest.mark.parametrize("absorbing", [False, True])
def test_the_discriminator_of_images_sees_the_frames_as_they_are(imitate, absorbing):
    """And beside them what is no pixel: whether it is the absorbing state, and the action."""
    task = SimpleNamespace(observations=Observations(Box(0, 255, (1, 40, 40), np.uint8), "Task"), actions=UNIT)
    config = GAILConfig(absorbing=absorbing, imitate=imitate)
    columns, draw = Inputs(task, config), np.random.default_rng(0)
    now, following = draw.integers(0, 256, (2, 3, 1, 40, 40), dtype=np.uint8)
    actions = draw.uniform(-1, 1, (3, 2))
    data = Transitions(now, actions, following.copy(), np.array([False, False, True]))
    network, seen = make_discriminator(task, columns, config), {}
    for part in (network.convolutions, network.head):
        part.register_forward_pre_hook(lambda part, given: seen.update({part: given[0].detach()}))
    network(torch.as_tensor(columns(data, lambda x: x), dtype=torch.float32))
    following[2] *= not absorbing  # the absorbing state is black
    frames = [now] if imitate == "pairs" else [now, following]
    np.testing.assert_allclose(seen[network.convolutions], np.concatenate(frames, axis=1) / 255, rtol=1e-6)
    flags = np.zeros((3, absorbing * len(frames)))
    if absorbing and imitate == "states":
        flags[2, 1] = AWAY
    others = np.concatenate([flags, actions if imitate == "pairs" else np.zeros((3, 0))], axis=1)
    count = seen[network.head].shape[1] - network.convolutions(seen[network.convolutions]).shape[1]
    assert count == others.shape[1]
    np.testing.assert_allclose(seen[network.head][:, len(seen[network.head][0]) - count :], others, rtol=1e-6)


def test_small_frames_are_flattened_and_it_is_said():
    observations = Observations(Box(0, 255, (10, 10, 3), np.uint8), "Task")
    assert not observations.image
    assert observations.size == 300
    assert "too small for convolutions" in observations.note()


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Box(-np.inf, np.inf, (2,)), "a bounded, one-dimensional Box"),
        (Box(0, 1, (2, 2)), "a bounded, one-dimensional Box"),
        (Box(0, 5, (2,), np.int64), "whole numbers"),
        (Dict({"a": Discrete(2)}), "takes a bounded Box, Discrete, MultiDiscrete and MultiBinary"),
        (MultiBinary([2, 2]), "one-dimensional"),
    ],
)
def test_other_actions_are_refused(space, told):
    with pytest.raises(UserError, match=f"Task has actions .*{told}"):
        actions_of(space, "Task")
    with pytest.raises(UserError, match="Task has observations .*flattened"):
        Observations(Text(5), "Task")


@pytest.mark.parametrize("space", [Discrete(3), Discrete(3, start=-1), MultiDiscrete([2, 3]), MultiBinary(2)], ids=str)
def test_categories_are_one_hot_for_the_discriminator_and_numbers_for_the_environment(space):
    space.seed(0)
    actions, taken = actions_of(space, "Task"), np.array([space.sample() for _ in range(20)])
    np.testing.assert_array_equal(actions.features(taken), [spaces.flatten(space, action) for action in taken])
    targets = actions.to_policy(taken)
    assert all(actions.policy_space.contains(target) for target in targets)
    np.testing.assert_array_equal(actions.to_env(targets), taken)
    drawn = actions.to_env(actions.uniform(np.random.default_rng(0), 200))
    assert all(space.contains(action) for action in drawn)
    assert {*map(str, drawn)} >= {*map(str, taken)}
    np.testing.assert_array_equal(actions.check_recorded(taken.astype(np.float64), "here"), taken)
    for wrong in (taken + 5, taken + 0.5):
        with pytest.raises(UserError, match="here has the action .* at step 0"):
            actions.check_recorded(wrong, "here")


@given(excess=st.floats(0, 9e-5))
def test_rounding_beyond_the_bounds_is_clipped_and_more_is_refused(excess):
    recorded = UNIT.check_recorded(np.array([[1 + excess, -1 - excess]]), "here")
    np.testing.assert_array_equal(recorded, np.float32([[1, -1]]))
    assert recorded.dtype == np.float32
    with pytest.raises(UserError, match=r"here has an action out of bounds at step 1 \(by 0.5\)"):
        UNIT.check_recorded(np.array([[0, 0], [0, -1.5]]), "here")


def test_executed_and_random_actions_lie_within_the_bounds():
    assert UNIT.to_env(np.array([[-3.0, 0.5]])).tolist() == [[-1, 0.5]]
    uneven = actions_of(Box(np.float32([0, -4]), np.float32([1, -2]), (2,)), "Task", rescale=False)
    drawn = uneven.uniform(np.random.default_rng(0), 1000)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.5, -3], atol=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), np.array([1, 2]) / np.sqrt(12), rtol=0.1)
    assert all(uneven.space.contains(action) for action in drawn)


@given(st.floats(-50, 50), st.floats(1e-3, 50), st.integers(0, 100))
def test_rescaled_actions_go_there_and_back(center, reach, seed):
    space = Box(np.float32([center - reach] * 2), np.float32([center + reach] * 2))
    actions = actions_of(space, "Task", rescale=True)
    units = actions.uniform(np.random.default_rng(seed), 20)
    done = actions.to_env(units)
    assert all(space.contains(action) for action in done)
    np.testing.assert_allclose(actions.to_policy(done), units, atol=1e-4 * max(1, abs(center) / reach))
    np.testing.assert_allclose(actions.to_env(units * 0 + 9), space.high[None].repeat(20, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "rescaled"), [(-1, 1, False), (-0.6, 0.6, False), (-2, 2, True), (-0.4, 0.4, True), (0, 1, True)]
)
def test_bounds_far_from_one_are_rescaled_and_it_is_said(low, high, rescaled):
    actions = actions_of(Box(low, high, (1,)), "Task")
    assert actions.rescaled == rescaled
    assert ("rescaled to" in (actions.note(-1.5) or "")) == rescaled
    unscaled = actions_of(Box(low, high, (1,)), "Task", rescale=False)
    assert unscaled.policy_space == unscaled.space
    assert "--rescale-actions" in unscaled.note(3.0)


@pytest.mark.parametrize(
    ("space", "batch"),
    [
        (spaces.Discrete(4), np.arange(4)),
        (spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]), (np.array([0, 1, 2, 0, 1]), np.zeros((5, 2)))),
        (spaces.Box(0, 255, (40, 40), np.uint8), np.zeros((1, 40, 40), np.uint8)),
    ],
)
def test_a_batch_that_looks_like_a_converted_observation_is_a_batch(space, batch):
    observations = Observations(space, "task")
    assert not observations.is_single(batch)
    one = tuple(part[0] for part in batch) if isinstance(batch, tuple) else batch[0]
    assert observations.is_single(one)
    np.testing.assert_array_equal(observations.convert(batch, "task")[0], observations.convert_one(one))
