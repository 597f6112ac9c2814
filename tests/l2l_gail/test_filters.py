"""The discriminator's filter: an even mixture, cut off, forgetting."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from l2l_gail.filters import CLIP, DECAY, MixtureFilter


@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(0.1, 1.5))
def test_an_even_mixture_has_mean_zero_and_variance_one(seed, shift, scale):
    draw = np.random.default_rng(seed)
    expert, policy = draw.normal(size=(400, 3)), shift + scale * draw.normal(size=(900, 3))
    filter_ = MixtureFilter().fit(expert)
    filter_.update(policy)
    both = [filter_(expert), filter_(policy)]
    assume(all(np.abs(x).max() < CLIP for x in both))  # else some of it is cut off
    np.testing.assert_allclose(sum(x.mean(axis=0) for x in both) / 2, 0, atol=1e-6)
    np.testing.assert_allclose(sum((x**2).mean(axis=0) for x in both) / 2, 1, rtol=0.01)


def test_outliers_are_cut_off_and_do_not_squeeze_the_rest():
    draw = np.random.default_rng(0)
    expert = draw.normal(size=(500, 1))
    fallen = np.full((500, 1), 1e4)
    filter_ = MixtureFilter().fit(expert)
    filter_.update(fallen)
    assert np.array_equal(filter_(fallen), filter_(10 * fallen))
    assert filter_(expert).std() > 1 / CLIP


def test_old_rounds_are_forgotten():
    expert = np.random.default_rng(0).normal(size=(500, 1))
    filter_ = MixtureFilter().fit(expert)
    filter_.update(expert + 2)
    first = filter_.policy[0].copy()
    filter_.update(expert)
    assert filter_.policy[0] == pytest.approx(DECAY * first, rel=0.05)
