"""Hand-designed followers and the classifier's losses, against attack and loss written out by hand."""

import math

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack

from l2l_at.attacks import apgd, descend, minus_loss
from l2l_at.batches import Batch
from l2l_at.config import ATConfig
from l2l_at.datasets import load
from l2l_at.methods import leaders
from l2l_at.threat import Threat
from l2l_at.trainer import Trainer
from tests.l2l_at.by_hand import EPS, ascent, compare, cut, losses, named, started

THREAT = Threat("linf", EPS)
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


@pytest.mark.parametrize("name", BY_HAND)
def test_hand_designed_methods(name, game):
    steps, size, start, rises, training, loss = BY_HAND[name]
    model, batch = game

    def signed_steps(twin):
        twin.train(training)
        delta = started(batch, start)
        for _ in range(steps):
            delta = cut(delta + size * EPS * ascent(twin, batch, delta, rises).sign(), batch.images)
        return delta

    compare(named(name), model, batch, signed_steps, loss)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_robust_optimisation_is_one_steepest_step_from_the_image(smooth_game, norm):
    model, batch = smooth_game
    batch = batch._replace(images=batch.images * 0.4 + 0.3)  # away from the box, which the paper does not know
    delta = named("ro", norm=norm).loss(model, batch).delta
    for mine, gradient in zip(delta, ascent(model, batch, torch.zeros_like(batch.images)), strict=True):
        largest = gradient.sign() * (gradient.abs() == gradient.abs().max())
        steps = {"linf": gradient.sign(), "l2": gradient / gradient.norm(), "l1": largest}
        torch.testing.assert_close(mine, EPS * steps[norm])


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_auto_pgd_is_that_of_the_published_code(game, steps):
    model, batch = game
    model.eval()
    start = 0.5 * EPS * torch.randn_like(batch.images).sign()
    losses = minus_loss(model, *batch[:2], per_sample=True)
    found = apgd(losses, cut(start, batch.images), batch.images, THREAT, steps=steps)
    published = APGDAttack(model, n_iter=steps, norm="Linf", eps=EPS, device="cpu")
    published.init_hyperparam(batch.images)
    theirs, *_ = published.attack_single_run(*batch[:2], x_init=batch.images + cut(start, batch.images))
    torch.testing.assert_close(batch.images + found, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_pgd_is_at_least_as_good_as_what_it_met_and_treats_samples_one_by_one(smooth_game, norm):
    model, batch = smooth_game
    met, threat = [], Threat(norm, 0.3)
    objective = minus_loss(model, *batch[:2], per_sample=True)

    def watched(delta):
        values = objective(delta)
        met.append(values.detach())
        return values

    start = threat.random_start(batch.images)
    found = apgd(watched, start, batch.images, threat, steps=20)
    assert len(met) == 21
    torch.testing.assert_close(objective(found), torch.stack(met).amin(0))
    assert (threat.size(found) <= 0.3 + 1e-9).all()
    assert ((batch.images + found >= -1e-12) & (batch.images + found <= 1 + 1e-12)).all()
    for index in range(len(start)):
        one = slice(index, index + 1)
        alone = minus_loss(model, batch.images[one], batch.labels[one], per_sample=True)
        torch.testing.assert_close(apgd(alone, start[one], batch.images[one], threat, steps=20), found[one])


def test_auto_pgd_needs_no_step_size(smooth_game):
    """On a concave problem with its best point inside the ball fixed steps of a quarter of the radius overshoot."""
    images = torch.full((4, 1, 3, 3), 0.5, dtype=torch.float64)
    best = 0.1 * torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def objective(delta):
        return (delta - best).square().flatten(1).sum(1)

    threat, start = Threat("linf", 0.4), torch.zeros_like(images)
    found = apgd(objective, start, images, threat, steps=100)
    fixed = descend(lambda d: objective(d).sum(), start, images, threat, steps=100, size=0.25)
    assert objective(found).max() < 0.01 * objective(fixed).min()


def test_n_fgsm_is_noise_and_a_step_without_a_ball(game):
    model, batch = game
    images = batch.images  # half of the pixels lies on the box

    def by_hand(twin):
        noise = torch.empty_like(images).uniform_(-2 * EPS, 2 * EPS)
        noise = (images + noise).clamp(0, 1) - images
        return (images + noise + EPS * ascent(twin.train(), batch, noise).sign()).clamp(0, 1) - images

    compare(named("n-fgsm"), model, batch, by_hand, "ce")
    assert (named("n-fgsm").follower.perturb(model, batch).abs() > EPS).any()


def test_free_steps_along_the_classifiers_own_backward_pass(game):
    model, batch = game
    method = named("free", replays=3)
    assert method.replays == 3
    expected = torch.zeros_like(batch.images)
    for _ in range(3):
        answer = method.loss(model.train(), batch)
        torch.testing.assert_close(answer.delta, expected)
        answer.loss.backward()
        expected = cut(expected + EPS * ascent(model, batch, expected).sign(), batch.images)
        method.follower.update(model, batch)
    other = Batch(torch.rand_like(batch.images), *batch[1:])
    torch.testing.assert_close(method.loss(model, other).delta, cut(expected, other.images))


def test_free_counts_replays_as_steps():
    task = load("digits", subset=256)
    trainer = Trainer(ATConfig(method="free", replays=2, batch_size=64, epochs=2), task)
    rows = []
    for _ in range(trainer.total):
        trainer.step()
        rows.append(trainer.batch.rows.tolist())
    assert trainer.total == 8
    assert rows[0] == rows[1]
    assert rows[1] != rows[2]
    assert sorted(sum(rows[::2], [])) == list(range(256))


def test_cross_entropy_and_its_mixtures(game):
    model, batch = game
    model.eval()
    delta = 0.1 * torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean, attacked = (losses(model, batch, d)["ce"].mean() for d in (0 * delta, delta))
    log_q = model(batch.images + delta).log_softmax(1)
    torch.testing.assert_close(leaders.clean(model, batch, delta), clean)
    torch.testing.assert_close(leaders.cross_entropy()(model, batch, delta), attacked)
    torch.testing.assert_close(
        leaders.cross_entropy(clean_share=0.25)(model, batch, delta), 0.25 * clean + 0.75 * attacked
    )
    smoothed = 0.8 * attacked - 0.2 * log_q.mean()
    torch.testing.assert_close(leaders.cross_entropy(smoothing=0.2)(model, batch, delta), smoothed)


def test_divergence_by_its_definition():
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.6, 0.3]])
    expected = sum(a * math.log(a / b) for a, b in zip(p[0].tolist(), q[0].tolist(), strict=True))
    assert float(leaders.divergence(p.log(), q.log())) == pytest.approx(expected, rel=1e-5)
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)  # p·log p of a certain prediction has no slope
    leaders.divergence(logits, torch.tensor([[1.0, 0.0]])).sum().backward()
    assert torch.isfinite(logits.grad).all()
