"""Methods as --method NAME puts them together, at their default settings, against attack and loss written out by hand.

The network has batch normalisation, so that an attack in the wrong mode, too, gives another answer.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from l2l_at.attacks import evaluating
from l2l_at.config import ATConfig
from l2l_at.methods import METHODS, make

EPS = 0.1


@pytest.fixture
def batch(batch):
    return batch._replace(images=batch.images.double())


@pytest.fixture
def model(model):
    return model.double()


def named(name, **settings):
    torch.manual_seed(0)
    method = make(replace(ATConfig(eps=str(EPS)), method=name, **settings), 1)
    if method.follower.attacker is not None:
        method.follower.attacker.double()
    return method


def cut(delta, images):
    return torch.minimum(torch.maximum(delta.clamp(-EPS, EPS), -images), 1 - images)


def signed_steps(model, batch, steps, size, start, rises):
    """PGD from its description."""
    images = batch.images
    if start == "random":
        delta = cut(torch.empty_like(images).uniform_(-EPS, EPS), images)
    else:
        delta = cut(0.001 * torch.randn_like(images), images) if start == "noise" else torch.zeros_like(images)
    for _ in range(steps):
        delta = cut(delta + size * EPS * ascent(model, batch, delta, rises).sign(), images)
    return delta


def ascent(model, batch, delta, rises):
    point = delta.clone().requires_grad_()
    logits = model(batch.images + point).log_softmax(1)
    if rises == "ce":
        loss = -logits.gather(1, batch.labels[:, None]).sum()
    else:
        clean = model(batch.images).softmax(1).detach()
        loss = (clean * (clean.log() - logits)).sum()
    return torch.autograd.grad(loss, point)[0]


def losses(model, batch, delta):
    """What the losses of the literature are made of, each of shape (batch,)."""
    p, q = model(batch.images).softmax(1), model(batch.images + delta).softmax(1)
    right = torch.zeros_like(p, dtype=torch.bool).scatter(1, batch.labels[:, None], True)
    kl, p_y, q_y = (p * (p / q).log()).sum(1), p[right], q[right]
    smoothed = -0.8 * p_y.log() - 0.2 * p.log().mean(1)
    margin = -q_y.log() - (1 - q.masked_fill(right, 0).amax(1)).log()
    return {
        "ce": -q_y.log(),
        "trades": -p_y.log() + 6 * kl,
        "mart": margin + 5 * kl * (1 - p_y),
        "arow": smoothed + 7 * kl * (1 - q_y),
        "cow": smoothed + 7 * kl * p_y,
    }


BY_HAND = {  # steps, size over the radius, start, what rises, whether in training mode, loss
    "fgsm-rs": (1, 1.25, "random", "ce", False, "ce"),
    "pgd": (10, 0.25, "random", "ce", False, "ce"),
    "pgd-2": (2, 0.5, "random", "ce", False, "ce"),
    "ro": (1, 1.0, "zero", "ce", True, "ce"),
    "trades": (10, 0.25, "noise", "kl", False, "trades"),
    "mart": (10, 0.25, "noise", "ce", False, "mart"),
    "arow": (10, 0.25, "random", "kl", False, "arow"),
    "cow": (10, 0.25, "random", "kl", False, "cow"),
}


def compare(method, model, batch, delta_by_hand, loss_name):
    """The answer of a method, and its gradient, beside one by hand; both begin from the same seed."""
    twin = copy.deepcopy(model)
    torch.manual_seed(5)
    answer = method.loss(model, batch)
    mine = torch.autograd.grad(answer.loss, list(model.parameters()))
    torch.manual_seed(5)
    delta = delta_by_hand(twin).detach()
    loss = losses(twin.train(), batch, delta)[loss_name].mean()
    torch.testing.assert_close(answer.delta, delta, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(answer.loss, loss, rtol=2e-4, atol=0)  # MART's loss has small constants of its own
    for one, other in zip(mine, torch.autograd.grad(loss, list(twin.parameters())), strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-12


@pytest.mark.parametrize("name", BY_HAND)
def test_hand_designed_methods(name, model, batch):
    *attack, training, loss = BY_HAND[name]
    compare(named(name), model, batch, lambda twin: signed_steps(twin.train(training), batch, *attack), loss)


PUBLISHED = {"l2l-naive": (1, 1.0), "l2l-grad": (1, 1.0), "l2l-2step": (2, 1.0), "l2l-kstep": (10, 0.007 / 0.031)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_learned_attackers(name, model, batch):
    method, (steps, size) = named(name), PUBLISHED[name]
    network, images = method.follower.attacker.network, batch.images

    def by_hand(twin):
        moved, total = images, torch.zeros_like(images)
        for _ in range(steps):
            seen = [moved]
            if name != "l2l-naive":
                gradient = ascent(twin.train(), batch, moved - images, "ce")
                seen.append(gradient / gradient.abs().max())
            step = size * EPS * network(torch.cat(seen, 1)).tanh()
            total = total + step
            moved = (moved + step).clamp(0, 1)
        reached = moved - images if name == "l2l-kstep" else total
        return (images + reached.clamp(-EPS, EPS)).clamp(0, 1) - images

    compare(method, model, batch, by_hand, "ce")


@pytest.mark.parametrize(("name", "rises", "loss"), [("l2l", "ce", "ce"), ("l2l-trades", "kl", "trades")])
def test_residual_attacker_starts_as_two_soft_sign_steps(name, rises, loss, model, batch):
    def by_hand(twin):
        delta = cut(torch.empty_like(batch.images).uniform_(-EPS, EPS), batch.images)  # never attacked before
        for _ in range(2):
            gradient = ascent(twin.eval(), batch, delta, rises)
            unit = (gradient / gradient.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
            delta = cut(delta + 0.75 * EPS * (2 * unit).tanh(), batch.images)
        return delta

    compare(named(name, freeze_attacker=True), model, batch, by_hand, loss)
    compare(named(name), model, batch, by_hand, loss)


@pytest.mark.parametrize(
    ("name", "every"), [("l2l", 4), ("l2l-trades", 4), ("l2l-sdi", 20), ("l2l-grad", 1), ("l2l-naive", 1)]
)
def test_how_often_the_attacker_is_fitted(name, every, model, batch):
    method, fitted = named(name), []
    for count in range(21):
        method.loss(model, batch).loss.backward()
        if method.follower.improve(model, batch):
            fitted.append(count)
    assert fitted == list(range(0, 21, every))


IN_TRAINING_MODE = {"standard", "ro", "fast-bat", "free", "grad-align", "n-fgsm", *PUBLISHED}


@pytest.mark.parametrize("name", METHODS)
def test_mode_in_which_the_classifier_is_attacked(name, model, batch):
    method, modes, attacker_modes = named(name), [], []
    model[1].register_forward_pre_hook(lambda module, _: modes.append(module.training))
    method.loss(model, batch).loss.backward()
    first = name in IN_TRAINING_MODE
    assert modes[0] == first
    assert modes[-1]
    assert modes == sorted(modes)  # once the attack is over, the classifier's own step is in training mode
    if name in PUBLISHED:
        module = method.follower.attacker.network
        module.register_forward_pre_hook(lambda module, _: attacker_modes.append(module.training))
        method.loss(model, batch).loss.backward()
        assert not any(attacker_modes)
        modes.clear()
        attacker_modes.clear()
        method.follower.improve(model, batch)
        assert all(attacker_modes)
        assert not any(modes)
    else:
        modes.clear()
        method.follower.improve(model, batch)
        assert not modes  # one evaluation serves both players


def test_gradients_of_the_residual_attacker_are_clipped(model, batch):
    method = named("l2l")
    norms = []

    def step():
        leaves = [leaf.grad for leaf in method.follower.attacker.parameters() if leaf.grad is not None]
        norms.append(float(torch.cat([leaf.flatten() for leaf in leaves]).norm()))

    method.follower.optimizer.step = step
    (1e6 * method.loss(model, batch).loss).backward()
    figures = method.follower.improve(model, batch)
    assert float(figures["gradient_norm"]) > 1e3  # told as it was
    assert norms == [pytest.approx(1.0, rel=1e-3)]


def test_evaluation_mode_ends_where_it_began(model):
    model[1].eval()
    before = [module.training for module in model.modules()]
    assert set(before) == {True, False}
    broken = torch.zeros(1, 2, 8, 8, dtype=torch.float64)  # one channel too many
    with evaluating(model) as judged:
        assert judged is model
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    with pytest.raises(RuntimeError), evaluating(model):
        model(broken)
    assert [module.training for module in model.modules()] == before


def test_residual_attacker_under_trades_learns_from_the_classifiers_own_loss(model, batch):
    method = named("l2l-trades", attacker_every=1, attack_steps=1)
    rule, images = method.follower.attacker, batch.images
    nn.init.normal_(rule.network[-1].weight, std=0.1)
    twin = copy.deepcopy(model)
    torch.manual_seed(5)
    answer = method.loss(model, batch)
    answer.loss.backward()
    torch.manual_seed(5)
    start = cut(torch.empty_like(images).uniform_(-EPS, EPS), images)
    gradient = ascent(twin.eval(), batch, start, "kl")
    unit = (gradient / gradient.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
    raw = 2 * rule.log_sharpness.exp() * unit + rule.network(torch.cat([images + start, unit, start / EPS], 1))
    delta = cut(start + 0.75 * EPS * rule.log_size.exp() * raw.tanh(), images)
    loss = losses(twin.train(), batch, delta)["trades"].mean()
    torch.testing.assert_close(answer.delta, delta.detach())
    torch.testing.assert_close(answer.loss, loss)
    parameters = list(rule.parameters())
    for parameter, expected in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        assert expected.norm() > 0
        assert (parameter.grad - expected).norm() <= 1e-6 * expected.norm()
