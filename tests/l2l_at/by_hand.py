"""Attacks and losses written out from their descriptions, in double precision, to compare methods with."""

import copy
from dataclasses import replace

import torch

from l2l_at.config import ATConfig
from l2l_at.methods import make

EPS = 0.1


def named(name, **settings):
    """A method at its default settings, but for those given."""
    torch.manual_seed(0)
    return make(replace(ATConfig(eps=str(EPS)), method=name, **settings), 1)


def precise(method):
    """The method with its attacker in double precision."""
    if method.follower.attacker is not None:
        method.follower.attacker.double()
    return method


def cut(delta, images, eps=EPS):
    return torch.minimum(torch.maximum(delta.clamp(-eps, eps), -images), 1 - images)


def ascent(model, batch, delta, rises="ce"):
    """The gradient in the perturbation of the summed cross-entropy, or of the divergence from the clean prediction."""
    point = delta.clone().requires_grad_()
    logits = model(batch.images + point).log_softmax(1)
    if rises == "ce":
        loss = -logits.gather(1, batch.labels[:, None]).sum()
    else:
        clean = model(batch.images).softmax(1).detach()
        loss = (clean * (clean.log() - logits)).sum()
    return torch.autograd.grad(loss, point)[0]


def started(batch, start):
    """A first perturbation."""
    images = batch.images
    if start == "random":
        return cut(torch.empty_like(images).uniform_(-EPS, EPS), images)
    return cut(0.001 * torch.randn_like(images), images) if start == "noise" else torch.zeros_like(images)


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


def compare(method, model, batch, delta_by_hand, loss_name):
    """The answer of a method, and its gradient, beside one by hand; both begin from the same seed.

    Where the model has batch normalisation, an attack in the wrong mode gives another answer."""
    twin = copy.deepcopy(model)
    torch.manual_seed(5)
    answer = precise(method).loss(model, batch)
    mine = torch.autograd.grad(answer.loss, list(model.parameters()))
    torch.manual_seed(5)
    delta = delta_by_hand(twin).detach()
    loss = losses(twin.train(), batch, delta)[loss_name].mean()
    torch.testing.assert_close(answer.delta, delta, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(answer.loss, loss, rtol=2e-4, atol=0)  # MART's loss has small constants of its own
    for one, other in zip(mine, torch.autograd.grad(loss, list(twin.parameters())), strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-12
