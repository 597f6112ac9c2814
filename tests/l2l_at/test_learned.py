"""Learned followers against attack, loss and the attacker's gradient written out by hand."""

import copy

import pytest
import torch
from torch import nn

from tests.l2l_at.by_hand import EPS, ascent, compare, cut, losses, named, precise, started

PUBLISHED = {"l2l-naive": (1, 1.0), "l2l-grad": (1, 1.0), "l2l-2step": (2, 1.0), "l2l-kstep": (10, 0.007 / 0.031)}


def published(name, model, attacker, batch):
    """Perturbations of a published attacker, with their derivative in its weights."""
    (steps, size), images = PUBLISHED[name], batch.images
    moved, total = images, torch.zeros_like(images)
    for _ in range(steps):
        gradient = ascent(model, batch, moved.detach() - images)
        seen = [moved] if name == "l2l-naive" else [moved, gradient / gradient.abs().max()]
        seen = torch.cat(seen, 1)
        step = size * EPS * attacker(seen.detach() if name == "l2l-kstep" else seen).tanh()
        total, moved = total + step, (moved + step).clamp(0, 1)
    reached = moved - images if name == "l2l-kstep" else total
    return (images + reached.clamp(-EPS, EPS)).clamp(0, 1) - images


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_attackers(name, game):
    """The classifier's step is in training mode; the attacker learns from the classifier in evaluation mode."""
    model, batch = game
    method = named(name)
    attacker = copy.deepcopy(precise(method).follower.attacker)
    compare(method, model, batch, lambda twin: published(name, twin.train(), attacker.network.eval(), batch), "ce")
    twin = copy.deepcopy(model).eval()
    delta = published(name, twin, attacker.network.train(), batch)
    loss = losses(twin, batch, delta)["ce"].mean()
    expected = torch.autograd.grad(-loss, list(attacker.parameters()))
    optimizer, found = method.follower.learner.optimizer, []
    weights = list(method.follower.attacker.parameters())
    optimizer.register_step_pre_hook(lambda *_: found.extend(p.grad.clone() for p in weights))
    figures = method.follower.update(model.train(), batch)
    assert figures["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        assert theirs.norm() > 0
        assert (mine - theirs).norm() <= 1e-6 * theirs.norm()
    assert model.training


def residual(rule, model, batch, delta, rises="ce"):
    """A step of the residual attacker, with its derivative in its weights."""
    gradient = ascent(model, batch, delta.detach(), rises)
    unit = (gradient / gradient.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
    raw = 2 * rule.log_sharpness.exp() * unit + rule.network(torch.cat([batch.images + delta, unit, delta / EPS], 1))
    return cut(delta + 0.75 * EPS * rule.log_size.exp() * raw.tanh(), batch.images)


@pytest.mark.parametrize(("name", "rises", "loss"), [("l2l", "ce", "ce"), ("l2l-trades", "kl", "trades")])
def test_residual_attacker_starts_as_two_soft_sign_steps(name, rises, loss, game):
    model, batch = game

    def by_hand(twin):
        delta = started(batch, "random")  # never attacked before
        for _ in range(2):
            gradient = ascent(twin.eval(), batch, delta, rises)
            unit = (gradient / gradient.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
            delta = cut(delta + 0.75 * EPS * (2 * unit).tanh(), batch.images)
        return delta

    compare(named(name, freeze_attacker=True), model, batch, by_hand, loss)
    compare(named(name), model, batch, by_hand, loss)


@pytest.mark.parametrize(("name", "rises", "loss"), [("l2l", "ce", "ce"), ("l2l-trades", "kl", "trades")])
def test_residual_attacker_gets_the_gradient_of_the_shared_evaluation(name, rises, loss, game):
    model, batch = game
    method = precise(named(name, attack_start="random"))
    rule = method.follower.attacker
    torch.manual_seed(4)
    nn.init.normal_(rule.network[-1].weight, std=0.1)
    nn.init.constant_(rule.log_size, -0.3)
    nn.init.constant_(rule.log_sharpness, 0.2)
    twin = copy.deepcopy(model)
    torch.manual_seed(5)
    answer = method.loss(model.train(), batch)
    answer.loss.backward()
    torch.manual_seed(5)
    delta = started(batch, "random")
    for _ in range(2):
        delta = residual(rule, twin.eval(), batch, delta, rises)
    by_hand = losses(twin.train(), batch, delta)[loss].mean()
    torch.testing.assert_close(answer.delta, delta.detach())
    torch.testing.assert_close(answer.loss, by_hand)
    players = [*zip(model.parameters(), twin.parameters(), strict=True), *((p, p) for p in rule.parameters())]
    expected = torch.autograd.grad(by_hand, [theirs for _, theirs in players])
    for (mine, _), gradient in zip(players, expected, strict=True):
        assert (mine.grad - gradient).norm() <= 1e-6 * gradient.norm() + 1e-12


@pytest.mark.parametrize(("rate", "grows"), [(0.03, True), (0.0, False)])
def test_too_short_a_step_grows(rate, grows, model, batch):
    settings = {"attacker_every": 1, "attacker_scale_learning_rate": rate, "attacker_sees": ()}
    method = named("l2l", attack_step_size=0.02, **settings)
    for _ in range(20):
        method.loss(model, batch).loss.backward()
        figures = method.follower.update(model, batch)
    assert (float(figures["size"]) > 0.02 * 1.3) == grows
    assert (float(figures["size"]) == pytest.approx(0.02)) != grows


def test_gradients_of_the_residual_attacker_are_clipped(game):
    model, batch = game
    method, norms = precise(named("l2l")), []

    def look(*_):
        norms.append(float(torch.cat([p.grad.flatten() for p in method.follower.attacker.parameters()]).norm()))

    method.follower.learner.optimizer.register_step_pre_hook(look)
    (1e6 * method.loss(model, batch).loss).backward()
    figures = method.follower.update(model, batch)
    assert float(figures["gradient_norm"]) > 1e3  # told as it was
    assert norms == [pytest.approx(1.0, rel=1e-3)]
    method = named("l2l")
    method.follower.attacker.log_size.grad = torch.tensor(torch.nan)
    method.follower.update(model, batch)
    assert method.follower.skipped == 1
    assert all(torch.isfinite(p).all() for p in method.follower.attacker.parameters())


FITS = [
    ("l2l", 4, {}),
    ("l2l-trades", 4, {}),
    ("l2l-sdi", 20, {}),
    ("l2l-grad", 1, {}),
    ("l2l", 3, {"attacker_every": 3}),
]


@pytest.mark.parametrize(("name", "every", "settings"), FITS)
def test_how_often_the_attacker_is_fitted(name, every, settings, model, batch):
    method, fitted = named(name, **settings), []
    for count in range(21):
        method.loss(model, batch).loss.backward()
        if method.follower.update(model, batch):
            fitted.append(count)
    assert fitted == list(range(0, 21, every))


@pytest.mark.parametrize("name", ["l2l", "l2l-grad"])
def test_a_frozen_attacker_stays_as_it_starts(name, model, batch):
    method = named(name, freeze_attacker=True)
    before = [p.clone() for p in method.follower.attacker.parameters()]
    method.loss(model, batch).loss.backward()
    assert method.follower.update(model, batch) == {}
    assert all(torch.equal(a, b) for a, b in zip(before, method.follower.attacker.parameters(), strict=True))


def test_fgsm_sdi_is_a_learned_start_and_one_signed_step(game):
    model, batch = game
    model.eval()
    method, images = precise(named("l2l-sdi")), batch.images
    g = ascent(model, batch, torch.zeros_like(images))
    seen = (g / g.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
    start = EPS * method.follower.attacker.network(torch.cat([images, seen, 0 * images], dim=1)).tanh()
    start = cut(start, images).detach()
    expected = cut(start + EPS * ascent(model, batch, start).sign(), images)
    torch.testing.assert_close(method.follower.perturb(model, batch), expected)
    answer = method.loss(model.train(), batch._replace(images=images * 0.4 + 0.3))
    learned = [p for p in method.follower.attacker.parameters() if p.requires_grad]
    assert len(learned) == 6  # weights and biases of the network; the start has no length of its own
    assert all(gradient.norm() > 1e-6 for gradient in torch.autograd.grad(answer.loss, learned))
