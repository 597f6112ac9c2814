"""Spaces: what is refused, how demonstrations fit into them, and what an environment makes of an action."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from hypothesis import given
from hypothesis import strategies as st

from l2l_experiment.errors import UserError
from l2l_gail.spaces import Actions, Observations

UNIT = Actions(Box(-1.0, 1.0, (2,), np.float32), "Task")


@pytest.mark.parametrize("space", [Discrete(3), Box(0, 1, (2, 2)), Dict({"a": Box(0, 1, (2,))})])
@pytest.mark.parametrize("kind", [Observations, Actions])
def test_other_spaces_are_refused(kind, space):
    with pytest.raises(UserError, match=f"Task has {kind.kind} .*one-dimensional Box"):
        kind(space, "Task")


@given(excess=st.floats(0, 9e-5))
def test_rounding_beyond_the_bounds_is_clipped_and_more_is_refused(excess):
    recorded = UNIT.recorded(np.array([[1 + excess, -1 - excess]]), "here")
    np.testing.assert_array_equal(recorded, np.float32([[1, -1]]))
    assert recorded.dtype == np.float32
    with pytest.raises(UserError, match=r"here has an action out of bounds at step 1 \(by 0.5\)"):
        UNIT.recorded(np.array([[0, 0], [0, -1.5]]), "here")


def test_executed_and_random_actions_lie_within_the_bounds():
    assert UNIT.executed(np.array([[-3.0, 0.5]])).tolist() == [[-1, 0.5]]
    uneven = Actions(Box(np.float32([0, -4]), np.float32([1, -2]), (2,)), "Task")
    drawn = uneven.uniform(np.random.default_rng(0), 1000)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.5, -3], atol=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), np.array([1, 2]) / np.sqrt(12), rtol=0.1)
    assert all(uneven.space.contains(action) for action in drawn)


@pytest.mark.parametrize(("high", "log_std", "said"), [(1, -1.5, False), (50, -1.5, True), (1, 3.0, True)])
def test_bounds_that_do_not_fit_the_policys_first_actions_are_said(high, log_std, said):
    advice = Actions(Box(-high, high, (1,)), "Task").advice("Task", log_std)
    assert (advice is not None) == said
