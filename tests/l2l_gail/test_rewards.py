"""Reward forms against their formulas, and the scale of the reward."""

import numpy as np
import pytest
import torch

from l2l_gail.rewards import ReturnScale, reward

LOGITS = torch.linspace(-8, 8, 33, dtype=torch.float64)
D = LOGITS.sigmoid()
FORMULAS = {
    "gail": -(1 - D).log(),
    "airl": D.log() - (1 - D).log(),
    "fairl": -(D / (1 - D)).log() * (D / (1 - D)),
    "logd": D.log(),
    "dail": 0.5 * D * (LOGITS.tanh() + 1),
    "constant": torch.ones_like(D),
}


@pytest.mark.parametrize("form", FORMULAS)
def test_reward_is_its_formula_and_finite_for_any_logit(form):
    torch.testing.assert_close(reward(LOGITS, form), FORMULAS[form], rtol=1e-6, atol=1e-8)
    assert torch.isfinite(reward(torch.tensor([-1e4, 1e4]), form)).all()


def test_scale_is_the_standard_deviation_of_the_discounted_return():
    rewards = np.random.default_rng(0).normal(size=(50, 2)) + 1
    dones = np.zeros((50, 2), dtype=bool)
    dones[20, 0] = True
    scale, gamma = ReturnScale(2, 0.9), 0.9
    seen = np.zeros((50, 2))
    for env in range(2):
        total = 0.0
        for t in range(50):
            total = gamma * total + rewards[t, env]
            seen[t, env] = total
            total = 0.0 if dones[t, env] else total
    np.testing.assert_allclose(scale(rewards, dones), rewards / seen.std(), rtol=1e-6)


def test_the_scale_remembers_earlier_rounds_and_returns_that_never_vary_have_none():
    scale, draw = ReturnScale(1, 0.0), np.random.default_rng(0)
    first, second = draw.normal(size=(500, 1)), 10 * draw.normal(size=(500, 1))
    never = np.zeros((500, 1))
    np.testing.assert_allclose(scale(first, never), first / first.std(), rtol=1e-6)
    variance = (0.95 * first.var() + second.var()) / 1.95
    np.testing.assert_allclose(scale(second, never), second / np.sqrt(variance), rtol=1e-6)
    ones = np.ones((4, 2))
    assert np.array_equal(ReturnScale(2, gamma=0.0)(ones, ones), ones)
