"""Followers of the literature against their formulas: FAST-BAT, RO, Free, N-FGSM, GradAlign; and AWP."""

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at import awp
from l2l_at.attacks import evaluating
from l2l_at.average import Average
from l2l_at.config import ATConfig
from l2l_at.data import Batch, load
from l2l_at.methods import make
from l2l_at.trainer import Trainer

EPS = 0.1


@pytest.fixture
def game():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Softplus(), nn.Linear(12, 10)).double()
    images = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    images = images.where(images > 0.3, torch.zeros((), dtype=torch.float64))
    return model, Batch(images, torch.tensor([0, 3, 1, 9, 5]), torch.arange(5))


def named(name, **settings):
    return make(replace(ATConfig(eps=str(EPS)), method=name, **settings), 1)


def cut(delta, images, eps=EPS):
    return torch.minimum(torch.maximum(delta.clamp(-eps, eps), -images), 1 - images)


def published_fast_bat(model, images, labels, start, rate, strength):
    """Gradient of θ as the published code makes it: direct part plus the cross term, added to .grad."""

    def summed(delta):
        return -cross_entropy(model(images + delta), labels, reduction="sum")

    z0 = start.clone().requires_grad_()
    (g1,) = torch.autograd.grad(summed(z0), z0)
    z = cut(z0.detach() - rate * g1, images).requires_grad_()
    (g2,) = torch.autograd.grad(summed(z), z, create_graph=True)
    delta = cut(z.detach() - rate * g2.detach(), images)
    low, high = torch.maximum(-images, torch.tensor(-EPS)), torch.minimum(1 - images, torch.tensor(EPS))
    inactive = (delta > low + 1e-7) & (delta < high - 1e-7)
    d = delta.clone().requires_grad_()
    (u,) = torch.autograd.grad(cross_entropy(model(images + d), labels, reduction="sum"), d)
    parameters = list(model.parameters())
    inner = (g2 * (inactive * u / strength).detach()).sum()
    cross = torch.autograd.grad(inner, parameters, retain_graph=True)
    direct = torch.autograd.grad(cross_entropy(model(images + delta), labels), parameters)
    total = [a - b / len(images) for a, b in zip(direct, cross, strict=True)]
    return delta, total, sum(float(c.norm()) for c in cross)


@pytest.mark.parametrize(("strength", "setting"), [(10.0, 10.0), (1 / 0.02, 0.0), (1 / 0.02, 1 / 0.02)])
def test_fast_bat_equals_the_published_cross_term(game, strength, setting):
    model, batch = game
    method = named("fast-bat", bat_rate=0.02, bat_lambda=setting)
    torch.manual_seed(3)
    answer = method.loss(model, batch)
    gradients = torch.autograd.grad(answer.loss, list(model.parameters()))
    torch.manual_seed(3)
    start = cut(torch.empty_like(batch.images).uniform_(-EPS, EPS), batch.images)
    delta, expected, cross = published_fast_bat(model, batch.images, batch.labels, start, 0.02, strength)
    torch.testing.assert_close(answer.delta, delta, rtol=0, atol=1e-14)
    assert cross > 1e-3
    for mine, theirs in zip(gradients, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-10 * theirs.norm()


def test_fast_bat_has_a_step_for_small_and_one_for_large_radii():
    assert named("fast-bat", eps="8/255").follower.rate == pytest.approx(5000 / 255)
    assert named("fast-bat", eps="9/255").follower.rate == pytest.approx(2000 / 255)
    assert named("fast-bat", bat_rate=3.0).follower.rate == 3.0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_robust_optimisation_is_one_steepest_step_from_the_image(game, norm):
    model, batch = game
    delta = named("ro", norm=norm).loss(model, Batch(batch.images * 0.4 + 0.3, *batch[1:])).delta
    images = (batch.images * 0.4 + 0.3).requires_grad_()  # away from the box, which the paper does not know
    (g,) = torch.autograd.grad(cross_entropy(model(images), batch.labels, reduction="sum"), images)
    for mine, gradient in zip(delta, g, strict=True):
        if norm == "linf":
            expected = EPS * gradient.sign()
        elif norm == "l2":
            expected = EPS * gradient / gradient.norm()
        else:
            largest = gradient.abs().flatten().argmax()
            expected = torch.zeros_like(gradient).flatten()
            expected[largest] = EPS * gradient.flatten()[largest].sign()
            expected = expected.view_as(gradient)
        torch.testing.assert_close(mine, expected)


def test_n_fgsm_is_noise_and_a_step_without_a_ball(game):
    model, batch = game
    images = batch.images  # a third of the pixels lies on the box
    torch.manual_seed(1)
    delta = named("n-fgsm").follower.respond(model, batch)
    torch.manual_seed(1)
    noise = torch.empty_like(images).uniform_(-2 * EPS, 2 * EPS)
    noise = ((images + noise).clamp(0, 1) - images).requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(images + noise), batch.labels), noise)
    expected = (images + noise + EPS * g.sign()).clamp(0, 1) - images
    torch.testing.assert_close(delta, expected.detach())
    assert (delta.abs() > EPS).any()


def test_pgd_on_the_divergence_by_hand(game):
    """The inner attack of TRADES and its relatives: ten signed steps up KL(p(x) ‖ p(x + δ)), p(x) a constant."""
    model, batch = game
    images = batch.images
    torch.manual_seed(4)
    delta = named("trades").follower.respond(model, batch)
    torch.manual_seed(4)
    mine = cut(0.001 * torch.randn_like(images), images)
    target = model(images).softmax(1).detach()
    for _ in range(10):
        mine = mine.detach().requires_grad_()
        kl = (target * (target.log() - model(images + mine).log_softmax(1))).sum()
        (g,) = torch.autograd.grad(kl, mine)
        mine = cut(mine + 0.25 * EPS * g.sign(), images)
    torch.testing.assert_close(delta, mine.detach())


def test_fgsm_sdi_is_a_learned_start_and_one_signed_step(game):
    model, batch = game
    model, batch = model.float(), Batch(batch.images.float(), batch.labels, batch.rows)
    follower, images = named("l2l-sdi").follower, batch.images
    x = images.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(x), batch.labels, reduction="sum"), x)
    seen = (g / g.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
    start = EPS * follower.attacker.network(torch.cat([images, seen, 0 * images], dim=1)).tanh()
    start = cut(start, images).detach().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(images + start), batch.labels, reduction="sum"), start)
    expected = cut(start + EPS * g.sign(), images).detach()
    torch.testing.assert_close(follower.perturb(model, Batch(images, batch.labels, batch.rows)), expected)


def test_grad_align_by_its_formula(game):
    model, batch = game
    method = named("grad-align", regularisation=0.7)
    torch.manual_seed(2)
    answer = method.loss(model, batch)
    gradients = torch.autograd.grad(answer.loss, list(model.parameters()))
    images, labels = batch.images, batch.labels
    x = images.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(x), labels), x)
    delta = cut(EPS * g.sign(), images)
    torch.manual_seed(2)
    noisy = (images + torch.empty_like(images).uniform_(-EPS, EPS)).requires_grad_()
    (turned,) = torch.autograd.grad(cross_entropy(model(noisy), labels), noisy, create_graph=True)
    a, b = g.flatten(1), turned.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    loss = cross_entropy(model(images + delta), labels) + 0.7 * (1 - cosine.mean())
    torch.testing.assert_close(answer.loss, loss)
    for mine, theirs in zip(gradients, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("eps", "published"), [("4/255", 0.063), ("8/255", 0.2), ("12/255", 0.632), ("16/255", 2.0)])
def test_grad_align_has_the_published_coefficients(eps, published):
    assert named("grad-align", eps=eps).follower.strength == pytest.approx(published, rel=6e-3)
    assert named("grad-align", eps="0.2").follower.strength == 2.0


def test_free_steps_along_the_classifiers_own_backward_pass(game):
    model, batch = game
    method = named("free", replays=3)
    assert method.replays == 3
    expected = torch.zeros_like(batch.images)
    for _ in range(3):
        answer = method.loss(model, batch)
        torch.testing.assert_close(answer.delta, expected)
        answer.loss.backward()
        point = expected.clone().requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(model(batch.images + point), batch.labels), point)
        expected = cut(expected + EPS * g.sign(), batch.images)
        method.follower.improve(model, batch)
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


def test_l2l_start_is_learned_through_the_signed_step(game):
    model, batch = game
    model, batch = model.float(), Batch(batch.images.float() * 0.4 + 0.3, *batch[1:])
    torch.manual_seed(0)
    method = named("l2l-sdi", attacker_every=1)
    answer = method.loss(model, batch)
    learned = [p for p in method.follower.attacker.parameters() if p.requires_grad]
    assert len(learned) == 6  # weights and biases of the network; the start has no length of its own
    gradients = torch.autograd.grad(answer.loss, learned)
    assert all(gradient.norm() > 1e-6 for gradient in gradients)
    assert (answer.delta.abs() <= EPS + 1e-6).all()


def test_weights_move_up_the_loss_by_their_relative_size_and_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    cross_entropy(model(torch.rand(5, 4)), torch.tensor([0, 1, 0, 1, 1])).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with awp.perturbed(model, 0.01):
        for name, p in model.named_parameters():
            shift = p.detach() - before[name]
            if p.dim() == 1:
                assert not shift.any()
            else:
                expected = 0.01 * before[name].norm() * p.grad / p.grad.norm()
                torch.testing.assert_close(shift, expected, rtol=1e-3, atol=1e-7)
        with torch.no_grad():
            model[0].weight.add_(1.0)
    torch.testing.assert_close(model[0].weight.detach(), before["0.weight"] + 1.0)
    torch.testing.assert_close(model[1].weight.detach(), before["1.weight"])


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "fp32") for name in ("pgd", "l2l", "fast-bat", "free", "trades", "grad-align")),
        *((name, "bf16") for name in ("pgd", "l2l", "trades")),  # autocast keeps copies of weights that then move
    ],
)
def test_weight_perturbation_goes_with_any_method(name, precision, monkeypatch):
    task, key = load("digits", subset=128), "network.0.weight"

    def after_a_step(**settings):
        config = ATConfig(method=name, awp_from=0.0, batch_size=64, epochs=1, precision=precision, **settings)
        trainer = Trainer(config, task)
        before = trainer.model.state_dict()[key].clone()
        torch.manual_seed(1)
        trainer.step()
        return before, trainer.model.state_dict()[key]

    # The step was taken from the weights as they are: with no rate to speak of they stay ...
    before, after = after_a_step(awp=0.01, rate=1e-12)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    # ... but the loss was lowered at other weights: had they not moved, the same draws would have led elsewhere.
    moved = after_a_step(awp=0.01)[1]
    monkeypatch.setattr(awp, "perturbed", lambda model, size: contextlib.nullcontext())
    assert not torch.allclose(after_a_step(awp=0.01)[1], moved, atol=1e-6)


def test_a_step_under_weight_perturbation_by_hand(small_images):
    """With batch normalisation, whose moments are to be those of the perturbed weights alone."""
    settings = {"dataset": "cifar10", "model": "preact-tiny", "eps": "8/255", "method": "pgd", "attack_steps": 1}
    config = ATConfig(**settings, awp=0.02, awp_from=0.0, batch_size=16, epochs=2, momentum=0.0, weight_decay=0.0)
    trainer = Trainer(config, small_images)
    batch = trainer.batches.next()
    trainer.batches.next = lambda: batch
    twin, rate = copy.deepcopy(trainer.model).train(), trainer.optimizer.param_groups[0]["lr"]
    torch.manual_seed(7)
    with evaluating(twin):
        delta = trainer.method.follower.perturb(twin, batch)
    weights = dict(twin.named_parameters())
    moments = {name: buffer.clone() for name, buffer in twin.named_buffers()}

    def gradients():
        loss = cross_entropy(twin(batch.images + delta), batch.labels)
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    first = gradients()
    with torch.no_grad():
        for name, buffer in twin.named_buffers():
            buffer.copy_(moments[name])
        move = {n: 0.02 * w.norm() * first[n] / first[n].norm() for n, w in weights.items() if w.dim() > 1}
        for name, shift in move.items():
            weights[name] += shift
        second = torch.enable_grad()(gradients)()
        for name, weight in weights.items():
            weight -= rate * second[name] + move.get(name, 0)
    torch.manual_seed(7)
    trainer.step()
    expected = twin.state_dict()
    for name, mine in trainer.model.state_dict().items():
        torch.testing.assert_close(mine, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_equal_average_takes_the_last_epochs_ends(small_images):
    """Weights and the moments of batch normalisation; of what is counted the last."""
    settings = {"dataset": "cifar10", "model": "preact-tiny", "eps": "8/255", "method": "standard"}
    config = ATConfig(**settings, average="swa", swa_from=0.5, epochs=4, batch_size=32)
    trainer = Trainer(config, small_images)
    kept = []
    for _ in range(trainer.total):
        trainer.step()
        if trainer.step_count in (6, 8):
            kept.append(copy.deepcopy(trainer.model.state_dict()))
        if trainer.step_count == 4:
            assert trainer.evaluated is trainer.model
    assert any("running_mean" in name for name in kept[0])
    for name, mine in trainer.evaluated.state_dict().items():
        expected = (kept[0][name] + kept[1][name]) / 2 if mine.is_floating_point() else kept[1][name]
        torch.testing.assert_close(mine, expected, msg=name)
    three = Average(nn.Linear(1, 1), "swa", 0.9)
    for value in (1.0, 2.0, 6.0):
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, value)
        three.update(model)
    assert float(three.module.weight.detach()) == pytest.approx(3.0)


def test_the_published_equal_average_begins_with_epoch_51_of_120():
    trainer = Trainer(ATConfig(method="standard", average="swa", epochs=120, batch_size=64), load("digits", subset=128))
    ends = [epoch for epoch in range(1, 121) if averages_after(trainer, epoch)]
    assert ends == list(range(51, 121))


def averages_after(trainer, epoch):
    trainer.step_count = epoch * trainer.batches.per_epoch
    return trainer.averages_now()
