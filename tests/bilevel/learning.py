"""Small pieces that the tests of learned followers share."""

import torch

from bilevel import LearnedFollower

START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def bowl(centre: float, curvature: float = 1.0):
    """curvature/2·|w − centre|², whose gradient is curvature·(w − centre)."""
    return lambda w: 0.5 * curvature * (w - centre).square().sum()


def follower_of(rule, lr=0.01, *, steps=2, clip_norm=1e9):
    return LearnedFollower(rule, torch.optim.SGD(rule.parameters(), lr=lr), steps=steps, clip_norm=clip_norm)
