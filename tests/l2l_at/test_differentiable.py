"""Methods that differentiate a gradient, FAST-BAT and GradAlign, against their formulas."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.l2l_at.by_hand import EPS, ascent, cut, named, started


def published_fast_bat(model, batch, start, rate, strength):
    """Gradient of θ as the published code makes it: direct part plus the cross term, added to .grad."""
    images, labels = batch.images, batch.labels
    z = cut(start + rate * ascent(model, batch, start), images).requires_grad_()
    (g2,) = torch.autograd.grad(-cross_entropy(model(images + z), labels, reduction="sum"), z, create_graph=True)
    delta = cut(z.detach() - rate * g2.detach(), images)
    low, high = torch.maximum(-images, torch.tensor(-EPS)), torch.minimum(1 - images, torch.tensor(EPS))
    inactive = (delta > low + 1e-7) & (delta < high - 1e-7)
    u = ascent(model, batch, delta)
    parameters = list(model.parameters())
    inner = (g2 * (inactive * u / strength).detach()).sum()
    cross = torch.autograd.grad(inner, parameters, retain_graph=True)
    direct = torch.autograd.grad(cross_entropy(model(images + delta), labels), parameters)
    total = [a - b / len(images) for a, b in zip(direct, cross, strict=True)]
    return delta, total, sum(float(c.norm()) for c in cross)


@pytest.mark.parametrize(("strength", "setting"), [(10.0, 10.0), (1 / 0.02, 0.0), (1 / 0.02, 1 / 0.02)])
def test_fast_bat_equals_the_published_cross_term(smooth_game, strength, setting):
    model, batch = smooth_game
    method = named("fast-bat", bat_step_size=0.02, bat_lambda=setting)
    torch.manual_seed(3)
    answer = method.loss(model, batch)
    gradients = torch.autograd.grad(answer.loss, list(model.parameters()))
    torch.manual_seed(3)
    delta, expected, cross = published_fast_bat(model, batch, started(batch, "random"), 0.02, strength)
    torch.testing.assert_close(answer.delta, delta, rtol=0, atol=1e-14)
    assert cross > 1e-3
    for mine, theirs in zip(gradients, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-10 * theirs.norm()


def test_fast_bat_has_a_step_for_small_and_one_for_large_radii():
    assert named("fast-bat", eps="8/255").follower.step_size == pytest.approx(5000 / 255)
    assert named("fast-bat", eps="9/255").follower.step_size == pytest.approx(2000 / 255)
    assert named("fast-bat", bat_step_size=3.0).follower.step_size == 3.0


def test_grad_align_by_its_formula(game):
    model, batch = game
    method = named("grad-align", regularisation=0.7)
    images, labels = batch.images, batch.labels
    delta = method.follower.respond(model.train(), batch)
    method.follower.perturb(model, batch._replace(images=images.flip(0)))  # asking changes nothing
    torch.manual_seed(2)
    mine = method.leader(model, batch, delta)
    gradients = torch.autograd.grad(mine, list(model.parameters()))
    g = ascent(model, batch, torch.zeros_like(images))
    torch.testing.assert_close(delta, cut(EPS * g.sign(), images))
    torch.manual_seed(2)
    noisy = (images + torch.empty_like(images).uniform_(-EPS, EPS)).requires_grad_()
    (turned,) = torch.autograd.grad(cross_entropy(model(noisy), labels), noisy, create_graph=True)
    a, b = g.flatten(1), turned.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    loss = cross_entropy(model(images + delta), labels) + 0.7 * (1 - cosine.mean())
    torch.testing.assert_close(mine, loss)
    for mine, theirs in zip(gradients, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("eps", "published"), [("4/255", 0.063), ("8/255", 0.2), ("12/255", 0.632), ("16/255", 2.0)])
def test_grad_align_has_the_published_coefficients(eps, published):
    assert named("grad-align", eps=eps).follower.strength == pytest.approx(published, rel=6e-3)
    assert named("grad-align", eps="0.2").follower.strength == 2.0
