"""Methods against formulas written out by hand, on small networks."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from l2l_at import attacks
from l2l_at.config import ATConfig
from l2l_at.methods import METHODS, make
from l2l_at.threat import Threat
from l2l_experiment.errors import UserError

EPS = 0.1


def method_named(name: str, **settings):
    torch.manual_seed(0)
    return make(replace(ATConfig(eps=str(EPS)), method=name, **settings), 1)


def test_pgd_is_bit_equal_to_one_written_by_hand(model, batch):
    model.eval()
    torch.manual_seed(5)
    delta = attacks.pgd(model, batch.images, batch.labels, Threat("linf", EPS), steps=7, size=0.25)
    torch.manual_seed(5)
    by_hand = torch.empty_like(batch.images).uniform_(-EPS, EPS)
    by_hand = torch.minimum(torch.maximum(by_hand, -batch.images), 1 - batch.images)
    for _ in range(7):
        by_hand = by_hand.detach().requires_grad_()
        loss = cross_entropy(model(batch.images + by_hand), batch.labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, by_hand)
        by_hand = (by_hand + 0.25 * EPS * gradient.sign()).clamp(-EPS, EPS)
        by_hand = torch.minimum(torch.maximum(by_hand, -batch.images), 1 - batch.images)
    assert torch.equal(delta, by_hand.detach())


def published_two_steps(model, network, images, labels):
    """Perturbed images of the published 2-step attacker, from its description: see the class for the source."""

    def scaled(gradient):
        return gradient / gradient.abs().max()

    clean = images.clone().requires_grad_()
    (g0,) = torch.autograd.grad(cross_entropy(model(clean), labels), clean)
    d0 = EPS * network(torch.cat([images, scaled(g0)], 1).detach()).tanh()
    first = (images + d0).clamp(0, 1)
    (g1,) = torch.autograd.grad(cross_entropy(model(first), labels), first, retain_graph=True)
    d1 = EPS * network(torch.cat([first, scaled(g1).detach()], 1)).tanh()
    return (images + (d0 + d1).clamp(-EPS, EPS)).clamp(0, 1)


def test_two_step_attacker_gradients_equal_the_published_algebra(model, batch):
    method = method_named("l2l-2step")
    model.eval()
    attacked = published_two_steps(model, method.follower.attacker.network, batch.images, batch.labels)
    loss = -cross_entropy(model(attacked), batch.labels)
    expected = torch.autograd.grad(loss, list(method.follower.attacker.parameters()))
    found = {}
    method.follower.learner.optimizer.step = lambda: found.update(
        {name: p.grad.clone() for name, p in method.follower.attacker.named_parameters()}
    )
    figures = method.follower.improve(model, batch)
    assert figures["loss"] == pytest.approx(-float(loss.detach()), rel=1e-6)
    for gradient, (name, _) in zip(expected, method.follower.attacker.named_parameters(), strict=True):
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm(), name
        assert gradient.norm() > 0


def test_grad_attacker_learns_only_through_its_output(model, batch):
    method = method_named("l2l-grad")
    images, labels = batch.images, batch.labels
    model.eval()
    clean = images.clone().requires_grad_()
    (g0,) = torch.autograd.grad(cross_entropy(model(clean), labels), clean)
    inputs = torch.cat([images, g0 / g0.abs().max()], 1)
    attacked = (images + EPS * method.follower.attacker.network(inputs).tanh()).clamp(0, 1)
    expected = torch.autograd.grad(-cross_entropy(model(attacked), labels), list(method.follower.attacker.parameters()))
    found = []
    method.follower.learner.optimizer.step = lambda: found.extend(
        p.grad.clone() for p in method.follower.attacker.parameters()
    )
    method.follower.improve(model, batch)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_kstep_attacker_learns_from_what_its_steps_add(model, batch):
    method = method_named("l2l-kstep", attack_steps=3, attack_size=0.4)
    images, labels = batch.images, batch.labels
    model.eval()
    moved = images
    for _ in range(3):
        point = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(point), labels), point)
        inputs = torch.cat([point, gradient / gradient.abs().max()], 1).detach()
        moved = (moved + 0.4 * EPS * method.follower.attacker.network(inputs).tanh()).clamp(0, 1)
    attacked = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
    expected = torch.autograd.grad(-cross_entropy(model(attacked), labels), list(method.follower.attacker.parameters()))
    found = []
    method.follower.learner.optimizer.step = lambda: found.extend(
        p.grad.clone() for p in method.follower.attacker.parameters()
    )
    method.follower.improve(model, batch)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-3 * theirs.norm()


def test_residual_attacker_gets_the_gradient_of_the_shared_evaluation(model, batch):
    method = method_named("l2l", attack_steps=2, attack_start="zero", attacker_every=1)
    torch.manual_seed(4)
    rule = method.follower.attacker
    nn.init.normal_(rule.network[-1].weight, std=0.1)
    nn.init.constant_(rule.log_size, -0.3)
    nn.init.constant_(rule.log_sharpness, 0.2)
    images, labels, size = batch.images, batch.labels, 0.75 * EPS
    low, high = -torch.minimum(images, torch.tensor(EPS)), torch.minimum(1 - images, torch.tensor(EPS))
    twin = copy.deepcopy(model).train()  # its running moments must not see the evaluations below
    model.eval()
    delta = torch.zeros_like(images)
    for _ in range(2):
        point = delta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(images + point), labels, reduction="sum"), point)
        unit = (gradient / gradient.abs().mean((1, 2, 3), keepdim=True)).clamp(-3, 3)
        seen = torch.cat([images + delta, unit, delta / EPS], 1)
        raw = 2 * rule.log_sharpness.exp() * unit + rule.network(seen)
        delta = delta + size * rule.log_size.exp() * torch.tanh(raw)
        delta = torch.minimum(torch.maximum(delta.clamp(-EPS, EPS), low), high)
    model.train()
    loss = cross_entropy(model(images + delta), labels)
    expected = torch.autograd.grad(loss, list(method.follower.attacker.parameters()), retain_graph=True)
    weights = torch.autograd.grad(loss, list(model.parameters()))
    answer = method.loss(twin, batch)
    answer.loss.backward()
    torch.testing.assert_close(answer.loss, loss)
    torch.testing.assert_close(answer.delta, delta.detach())
    for parameter, gradient in zip(method.follower.attacker.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-7)
    for parameter, gradient in zip(twin.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_residual_attacker_goes_up_the_loss(model, batch):
    method = method_named("l2l", attacker_every=1, attacker_rate=1e-2, attack_start="zero", attack_size=0.3)
    losses = []
    for _ in range(30):
        answer = method.loss(model, batch)
        answer.loss.backward()
        method.follower.improve(model, batch)
        losses.append(float(answer.loss.detach()))
    assert losses[-1] > losses[0] + 0.01


@pytest.mark.parametrize(("rate", "grows"), [(0.03, True), (0.0, False)])
def test_too_short_a_step_grows(rate, grows, model, batch):
    settings = {"attacker_every": 1, "attack_size": 0.02, "attacker_scale_rate": rate, "attacker_sees": ()}
    method = method_named("l2l", **settings)
    for _ in range(20):
        method.loss(model, batch).loss.backward()
        figures = method.follower.improve(model, batch)
    assert (float(figures["size"]) > 0.02 * 1.3) == grows
    assert (float(figures["size"]) == pytest.approx(0.02)) != grows


def test_attacker_is_fitted_every_nth_batch_only(model, batch):
    method = method_named("l2l", attacker_every=3)
    fitted = []
    for _ in range(7):
        method.loss(model, batch).loss.backward()
        fitted.append(bool(method.follower.improve(model, batch)))
    assert fitted == [True, False, False, True, False, False, True]


def test_a_frozen_attacker_stays_as_it_starts(model, batch):
    method = method_named("l2l", freeze_attacker=True)
    before = [p.clone() for p in method.follower.attacker.parameters()]
    method.loss(model, batch).loss.backward()
    assert method.follower.improve(model, batch) == {}
    assert all(torch.equal(a, b) for a, b in zip(before, method.follower.attacker.parameters(), strict=True))


def test_fgsm_rs_is_one_long_step_from_a_random_start(model, batch):
    method = method_named("fgsm-rs")
    model.eval()
    torch.manual_seed(2)
    delta = method.follower.perturb(model, batch)
    torch.manual_seed(2)
    start = Threat("linf", EPS).random_start(batch.images).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(batch.images + start), batch.labels), start)
    expected = (start + 1.25 * EPS * gradient.sign()).clamp(-EPS, EPS)
    torch.testing.assert_close(delta, torch.minimum(torch.maximum(expected, -batch.images), 1 - batch.images))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_stays_in_the_threat_model_and_reaches_all_weights(name, model, batch):
    method = method_named(name)
    model.train()
    answer = method.loss(model, batch)
    answer.loss.backward()
    assert model.training
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert not answer.delta.requires_grad
    reach = 3 * EPS if name == "n-fgsm" else EPS  # noise of 2 ε and a step of ε, not cut to the ball
    assert (answer.delta.abs() <= reach + 1e-6).all()
    assert (batch.images + answer.delta >= -1e-6).all()
    assert (batch.images + answer.delta <= 1 + 1e-6).all()
    method.follower.improve(model, batch)
    assert model.training


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_safe_in_mixed_precision(name, model, batch):
    model.train()
    twin, gradients = copy.deepcopy(model), []
    for network, enabled in ((twin, False), (model, True)):
        method = method_named(name)
        torch.manual_seed(6)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            answer = method.loss(network, batch)
            answer.loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
            method.follower.improve(network, batch)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9
    assert answer.loss.dtype == torch.float32
    assert answer.delta.dtype == torch.float32
    for module in (model, method.follower.attacker or nn.Module()):
        assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in module.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_zero_input_gradient_gives_no_nan(name, batch):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(constant[1].weight)
    method = method_named(name)
    answer = method.loss(constant, batch)
    answer.loss.backward()
    method.follower.improve(constant, batch)
    assert torch.isfinite(answer.loss)
    if method.follower.attacker is not None:
        assert all(torch.isfinite(p).all() for p in method.follower.attacker.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_state_continues_bit_by_bit(name, model, batch):
    def step(method, seed, model=model):
        torch.manual_seed(seed)
        method.loss(model, batch).loss.backward()
        method.follower.improve(model, batch)
        model.zero_grad()

    settings = {"attacker_every": 2} if "attacker_every" in METHODS[name].takes else {}
    first, second = method_named(name, **settings), method_named(name, **settings)
    for seed in (1, 2, 7):  # not a multiple of `attacker_every`
        step(first, seed)
    second.follower.restore(*first.follower.state())
    twin = copy.deepcopy(model)
    step(first, 3)
    step(second, 3, twin)
    torch.manual_seed(9)
    mine = first.follower.respond(model, batch)
    torch.manual_seed(9)
    assert torch.equal(mine, second.follower.respond(twin, batch))


@pytest.mark.parametrize("name", ["pgd", "fgsm-rs", "l2l", "ro", "trades", "free"])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms(name, norm, model, batch):
    method = method_named(name, norm=norm)
    answer = method.loss(model, batch)
    size = Threat(norm, EPS).size(answer.delta)
    assert (size <= EPS * (1 + 1e-5)).all()
    assert size.max() > 0.5 * EPS or name == "free"  # whose first pass over a batch is at zero


@pytest.mark.parametrize("name", ["l2l-grad", "fast-bat", "grad-align", "n-fgsm"])
def test_forms_for_linf_refuse_other_norms(name):
    with pytest.raises(UserError, match="linf"):
        method_named(name, norm="l2")


def test_unknown_method():
    with pytest.raises(UserError, match="pgd"):
        method_named("pgdd")


@pytest.mark.parametrize(
    ("name", "settings", "flag"),
    [
        ("grad-align", {"label_smoothing": 0.2}, "--label-smoothing"),
        ("grad-align", {"clean_share": 0.5}, "--clean-share"),
        ("fast-bat", {"attack_steps": 3}, "--attack-steps"),
        ("pgd", {"regularisation": 6.0}, "--regularisation"),
        ("l2l-grad", {"attack_start": "random"}, "--attack-start"),
        ("standard", {"inner": "kl"}, "--inner"),
        ("pgd", {"bat_lambda": 0.0}, "--bat-lambda"),
        ("pgd", {"freeze_attacker": True}, "--freeze-attacker"),
        ("trades", {"attacker_rate": 5.0}, "--attacker-rate"),
        ("l2l", {"attacker": "wide"}, "--attacker"),
        ("l2l-grad", {"attacker_sees": ("image",)}, "--attacker-sees"),
        ("l2l-naive", {"gradient_scale": "sample"}, "--gradient-scale"),
        ("l2l-grad", {"attacker": "two-layer", "attacker_width": 64}, "--attacker-width"),
        ("l2l", {"freeze_attacker": True, "attacker_rate": 5.0}, "--attacker-rate"),
        ("pgd", {"swa_from": 0.9}, "--swa-from"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(name, settings, flag):
    with pytest.raises(UserError, match=flag):
        method_named(name, **settings)
