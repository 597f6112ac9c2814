"""Followers: parity with Adam, fitting, and continuing from a state."""

from dataclasses import replace

import pytest
import torch

from l2l_experiment.errors import UserError
from l2l_gail.discriminator import Discriminator, draw, objective
from l2l_gail.followers import AdamFollower, L2LFollower, make_follower


def task(config, seed=0):
    """A discriminator, its follower, and draws of training and scoring objectives from two shifted Gaussians."""
    torch.manual_seed(seed)
    discriminator = Discriminator(4, config.disc_hidden)
    follower = make_follower(discriminator, config)
    data = torch.Generator().manual_seed(7)
    expert, held, policy = (torch.randn(200, 4, generator=data) + shift for shift in (0.7, 0.7, 0.0))
    draws = torch.Generator().manual_seed(8)
    scores = torch.Generator().manual_seed(9)

    def train():
        return objective(discriminator, draw(expert, policy, 32, draws), config)

    def score():
        return objective(discriminator, draw(held, policy, 32, scores), config)

    return discriminator, follower, train, score


def weights_of(discriminator):
    return [p.detach().clone() for p in discriminator.parameters()]


@pytest.mark.parametrize("anchored", [False, True])
def test_zero_headed_rule_is_adam_to_the_last_bit_for_100_rounds(config, anchored):
    adam = task(config)
    learned = task(replace(config, follower="l2l", freeze_follower=True, follower_anchored=anchored))
    assert isinstance(adam[1], AdamFollower)
    assert isinstance(learned[1], L2LFollower)
    for round_ in range(100):
        for _, follower, train, score in (adam, learned):
            follower.respond(train, score, round_ / 100)
        for a, b in zip(weights_of(adam[0]), weights_of(learned[0]), strict=True):
            assert torch.equal(a, b), f"round {round_}"


def test_adam_follower_is_torch_adam(config):
    discriminator, follower, train, score = task(config)
    other, _, train_other, _ = task(config)
    optimizer = torch.optim.Adam(other.parameters(), lr=config.disc_rate)
    for _ in range(5):
        follower.respond(train, score, 0.0)
        for _ in range(config.disc_updates):
            optimizer.zero_grad()
            train_other()(dict(other.named_parameters())).backward()
            optimizer.step()
    for a, b in zip(weights_of(discriminator), weights_of(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_fitting_changes_the_rule_and_freezing_does_not(config):
    for frozen in (False, True):
        _, follower, train, score = task(replace(config, follower="l2l", freeze_follower=frozen))
        before = {name: value.clone() for name, value in follower.rule.state_dict().items()}
        for _ in range(3):
            figures = follower.respond(train, score, 0.5)
        after = follower.rule.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before) == frozen
        assert ("score" in figures) == (not frozen)


def test_step_over_adam_is_one_for_a_rule_that_is_adam_and_twice_that_at_twice_the_rate(config):
    _, follower, train, score = task(replace(config, follower="l2l", follower_rate=0.0, log_rate_rate=0.0))
    assert follower.respond(train, score, 0.0)["step_over_adam"] == pytest.approx(1.0, rel=1e-4)
    with torch.no_grad():
        follower.rule.log_rate.fill_(torch.tensor(2.0).log())
    assert follower.respond(train, score, 0.0)["step_over_adam"] == pytest.approx(2.0, rel=1e-4)


def test_log_rate_rises_from_a_rate_far_too_low(config):
    slow = replace(config, follower="l2l-rate", disc_rate=1e-6, log_rate_rate=0.05)
    _, follower, train, score = task(slow)
    for _ in range(30):
        figures = follower.respond(train, score, 0.0)
    assert follower.rule.network is None
    assert figures["log_rate"] > 1.0
    assert figures["rate"] == pytest.approx(1e-6 * torch.tensor(figures["log_rate"]).exp().item())


@pytest.mark.parametrize("name", ["adam", "l2l", "l2l-rate", "l2l anchored"])
def test_follower_continues_bit_by_bit_from_its_state(config, name):
    config = replace(config, follower=name.split()[0], follower_anchored="anchored" in name)
    discriminator, follower, train, score = task(config)
    for _ in range(3):
        follower.respond(train, score, 0.1)
    tensors, meta = follower.state()
    other, copy, train_other, score_other = task(config, seed=5)
    for _ in range(3 * config.disc_updates):
        train_other()  # the same place in the stream of batches
    fits = 0 if name == "adam" else 3 * config.disc_updates // config.follower_steps
    for _ in range(fits):
        score_other()
    copy.restore(tensors, meta)
    follower.respond(train, score, 0.2)
    copy.respond(train_other, score_other, 0.2)
    for a, b in zip(weights_of(discriminator), weights_of(other), strict=True):
        assert torch.equal(a, b)


def test_carried_rule_must_have_the_same_shape(config):
    _, small, *_ = task(replace(config, follower="l2l"))
    _, wide, *_ = task(replace(config, follower="l2l", follower_hidden=8))
    _, same, *_ = task(replace(config, follower="l2l"), seed=3)
    same.carry(small.rule.state_dict(), "runs/a")
    with pytest.raises(UserError, match="--follower-anchored True"):
        same.carry(small.rule.state_dict(), "runs/a", anchored=True)
    assert all(torch.equal(a, b) for a, b in zip(same.rule.parameters(), small.rule.parameters(), strict=True))
    with pytest.raises(UserError, match="follower-hidden"):
        wide.carry(small.rule.state_dict(), "runs/a")


def test_skipped_fits_are_counted_on_after_a_restart(config):
    config = replace(config, follower="l2l")
    _, follower, train, score = task(config)
    follower.respond(train, score, 0.1)
    follower.learner.skipped = 3
    tensors, meta = follower.state()
    _, other, *_ = task(config, seed=5)
    other.restore(tensors, meta)
    assert other.learner.skipped == 3


@pytest.mark.parametrize(("limit", "reaches"), [(None, 1.5), (2.0, 0.6931), (1.0, 0.0)])
def test_log_rate_stays_within_its_limit_and_can_come_back(config, limit, reaches):
    slow = replace(config, follower="l2l-rate", disc_rate=1e-6, log_rate_rate=0.5, log_rate_limit=limit)
    _, follower, train, score = task(slow)
    for _ in range(10):
        figures = follower.respond(train, score, 0.0)
    assert figures["log_rate"] > 1.0 if limit is None else figures["log_rate"] == pytest.approx(reaches, abs=1e-4)
    if limit == 2.0:  # at the limit the gradient still counts: what wants to come back is not held
        follower.learner.optimizer.state.clear()
        follower.respond(train, lambda: lambda weights: -score()(weights), 0.0)
        assert float(follower.rule.log_rate.detach()) < reaches - 0.1


def test_a_limit_below_one_is_none(config):
    with pytest.raises(UserError, match="at least 1"):
        replace(config, log_rate_limit=0.5)
