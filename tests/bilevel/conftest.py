"""Small pieces that the tests of the engine share."""

import pytest
import torch

from bilevel import LearnedFollower
from tests.bilevel.quadratic_game import QuadraticGame

START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
THROUGH = ("nothing", "rule", "everything")


@pytest.fixture
def game():
    return QuadraticGame()


def named(v):
    """A vector of six as two named parts."""
    return {"w": v[:4].view(2, 2), "b": v[4:]}


def joined(tree):
    return torch.cat([tree["w"].flatten(), tree["b"]])


def bowl(centre: float, curvature: float = 1.0):
    """curvature/2·|w − centre|², whose gradient is curvature·(w − centre)."""
    return lambda w: 0.5 * curvature * (w - centre).square().sum()


def follower_of(rule, lr=0.01, *, steps=2, clip_norm=1e9):
    return LearnedFollower(rule, torch.optim.SGD(rule.parameters(), lr=lr), steps=steps, clip_norm=clip_norm)
