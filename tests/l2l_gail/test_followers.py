"""Followers: parity with Adam, what a learned rule is scored on, and fitting."""

from dataclasses import replace

import pytest
import torch

from bilevel.tree import unflatten
from l2l_experiment.errors import UserError
from l2l_gail import FOLLOWERS, GAIL, Discriminator, GAILConfig
from l2l_gail.followers import Objectives, resolve_config, score_config, weights_of
from l2l_gail.losses import draw, objective
from l2l_gail.transitions import transitions_of
from tests.conftest import quick
from tests.l2l_gail.conftest import SMALL, make_demonstrations

L2L = GAILConfig(follower="l2l", **SMALL | {"disc_updates": 4}, follower_steps=2, follower_hidden=4)
ADAM = GAILConfig(**SMALL | {"disc_updates": 4})


def task(config, seed=0):
    """A discriminator, its follower, and draws of training and scoring objectives from two shifted Gaussians."""
    torch.manual_seed(seed)
    discriminator = Discriminator(4, config.disc_hidden)
    config = resolve_config(config)
    follower = FOLLOWERS[config.follower].make(discriminator, config)
    data = torch.Generator().manual_seed(7)
    expert, held, policy = (torch.randn(200, 4, generator=data) + shift for shift in (0.7, 0.7, 0.0))
    draws, scores = (torch.Generator().manual_seed(number) for number in (8, 9))
    return follower, Objectives(
        train=lambda: objective(discriminator, draw(expert, policy, 32, draws), config),
        score=lambda: objective(discriminator, draw(held, policy, 32, scores), score_config(config)),
    )


def assert_same_answers(one, other, *, rounds):
    """Two followers with their objectives move equal discriminators alike, to the last bit in every round."""
    for round_ in range(rounds):
        for follower, objectives in (one, other):
            follower.answer(objectives, round_ / rounds)
        first, second = (weights_of(follower.discriminator) for follower, _ in (one, other))
        assert all(torch.equal(first[name], second[name]) for name in first), f"round {round_}"


@pytest.mark.parametrize("anchored", [False, True])
def test_a_rule_that_has_not_learned_is_adam_to_the_last_bit_for_30_rounds(anchored):
    adam, learned = task(ADAM), task(replace(L2L, freeze_follower=True, follower_anchored=anchored))
    assert_same_answers(adam, learned, rounds=30)


@pytest.mark.parametrize("anchored", [False, True])
def test_the_memory_of_earlier_checkpoints_is_taken_up(anchored):
    """A dictionary of tensors by the weights' names for the square and the start, and one for each momentum."""
    follower, objectives = task(replace(L2L, follower_anchored=anchored))
    follower.answer(objectives, 0.0)
    state = follower.state_dict()
    memory, weights = dict(state["memory"]), weights_of(follower.discriminator)
    memory["momenta"] = {
        str(beta): unflatten(weights, row) for beta, row in zip((0.5, 0.9, 0.99), memory["momenta"], strict=True)
    }
    memory |= {name: unflatten(weights, memory[name]) for name in ("square", "start") if name in memory}
    other, _ = task(replace(L2L, follower_anchored=anchored))
    other.load_state_dict(state | {"memory": memory})
    assert follower.memory.keys() == other.memory.keys()
    assert all(torch.equal(follower.memory[name], other.memory[name]) for name in follower.memory)


def test_adam_follower_is_torch_adam():
    follower, objectives = task(ADAM)
    other, others = task(ADAM)
    optimizer = torch.optim.Adam(other.discriminator.parameters(), lr=ADAM.disc_learning_rate)
    for _ in range(5):
        before = weights_of(follower.discriminator)
        figures = follower.answer(objectives, 0.0)
        for _ in range(ADAM.disc_updates):
            optimizer.zero_grad()
            others.train()(dict(other.discriminator.named_parameters())).backward()
            optimizer.step()
    after, expected = weights_of(follower.discriminator), weights_of(other.discriminator)
    for name in after:
        torch.testing.assert_close(after[name], expected[name], rtol=1e-4, atol=1e-6)
    length = torch.cat([(after[name] - before[name]).flatten() for name in after]).norm()
    assert figures == {"rate": ADAM.disc_learning_rate, "update_norm": pytest.approx(float(length), rel=1e-5)}


def test_a_step_is_as_long_as_adams_and_twice_that_at_twice_the_rate():
    follower, objectives = task(replace(L2L, follower_learning_rate=0.0, log_rate_learning_rate=0.0))
    assert follower.answer(objectives, 0.0)["step_over_adam"] == pytest.approx(1.0, rel=1e-4)
    follower.rule.log_rate.data.fill_(torch.tensor(2.0).log())
    assert follower.answer(objectives, 0.3)["step_over_adam"] == pytest.approx(2.0, rel=1e-4)
    assert float(follower.memory["progress"]) == pytest.approx(0.3)


SLOW = GAILConfig(follower="l2l-rate", disc_learning_rate=1e-6, **SMALL | {"disc_updates": 4}, follower_steps=2)


@pytest.mark.parametrize(("limit", "reaches"), [(None, None), (2.0, 0.6931), (1.0, 0.0)])
def test_the_log_rate_stays_within_its_limit_and_can_come_back(limit, reaches):
    follower, objectives = task(replace(SLOW, log_rate_learning_rate=0.5, log_rate_limit=limit))
    for _ in range(10):
        figures = follower.answer(objectives, 0.0)
    assert figures["log_rate"] > 1.0 if limit is None else figures["log_rate"] == pytest.approx(reaches, abs=1e-4)
    if limit == 2.0:  # at the limit the gradient still counts: what wants to come back is not held
        follower.learner.optimizer.state.clear()
        worse = objectives._replace(score=lambda: lambda weights: -objectives.score()(weights))
        assert follower.answer(worse, 0.0)["log_rate"] < reaches - 0.1


def test_a_rule_is_carried_to_where_it_fits(tmp_path):
    trained, objectives = task(L2L)
    trained.answer(objectives, 0.1)
    fresh = task(L2L, seed=3)[0]
    before = weights_of(fresh.discriminator)
    fresh.warm_start(trained.rule, "runs/a")
    assert all(torch.equal(a, b) for a, b in zip(fresh.rule.parameters(), trained.rule.parameters(), strict=True))
    assert all(torch.equal(before[name], weight) for name, weight in weights_of(fresh.discriminator).items())
    for config, word in (
        (replace(L2L, follower_hidden=8), "--follower-hidden"),
        (replace(L2L, follower_anchored=True), "--follower-anchored False"),
    ):
        with pytest.raises(UserError, match=f"runs/a.*{word}"):
            task(config)[0].warm_start(trained.rule, "runs/a")


@pytest.mark.parametrize(
    ("settings", "penalty", "smoothing", "anchored"),
    [
        ({}, 1.0, 0.0, False),
        ({"gradient_penalty": 0.0}, 1.0, 0.0, True),
        ({"gradient_penalty": 0.0, "score_smoothing": 0.2, "follower_anchored": False}, 0.0, 0.2, False),
        ({"gradient_penalty": 0.0, "label_smoothing": 0.1}, 0.0, 0.1, True),
        ({"gradient_penalty": 0.0, "score_penalty": 0.0}, 0.0, 0.0, True),
        ({"gradient_penalty": 0.0, "follower": "l2l-rate", "follower_hidden": 16}, 1.0, 0.0, None),
    ],
)
def test_a_rule_is_scored_on_an_objective_with_a_finite_optimum(settings, penalty, smoothing, anchored):
    config = resolve_config(replace(L2L, **settings))
    assert score_config(config) == replace(config, gradient_penalty=penalty, label_smoothing=smoothing)
    assert (config.score_penalty, config.score_smoothing) == (penalty, smoothing)
    assert config.log_rate_limit == (None if config.gradient_penalty else 100)
    assert config.follower_anchored is anchored
    assert resolve_config(config) == config
    follower = task(config)[0]
    assert follower.rule.anchored is bool(anchored)
    assert follower.holdout == 0.25


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(L2L, follower_steps=3), "--follower-steps 3 must divide --disc-updates"),
        (replace(L2L, holdout=0.9999), "--holdout 0.9999 of a round's 64 transitions"),
        (replace(ADAM, holdout=0.0, score_penalty=1.0), "--holdout, --score-penalty would change nothing"),
        (replace(ADAM, gradient_penalty=0.0, gradient_target=0.0), "--gradient-target would change nothing"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(config, words):
    with pytest.raises(UserError, match=words):
        resolve_config(config)


@pytest.mark.parametrize(
    "own", quick([{}, {"absorbing": True, "mixup": True}, {"disc_form": "airl", "gradient_penalty": 0.0}], {}), ids=str
)
@pytest.mark.parametrize(
    "follower",
    quick(["adam", "l2l", "l2l-rate", "l2l-pretrained", "hypergradient", "prodigy", "sgd"], "adam", "l2l", "prodigy"),
)
def test_discriminator_and_follower_are_on_one_device(config, elsewhere, follower, own):
    demonstrations = make_demonstrations(3, 1)
    gail = GAIL("Pendulum-v1", demonstrations, config=replace(config, follower=follower, **own))
    gail.model.device = gail.device = elsewhere
    gail.follower = FOLLOWERS[follower].make(gail.discriminator.to(elsewhere), gail.config)
    data = transitions_of(demonstrations)
    for progress in (0.1, 0.2):
        gail.answer(data, progress)
        assert gail.reward(data).shape == (len(data),)
    assert {weight.device for weight in gail.discriminator.parameters()} == {elsewhere}
