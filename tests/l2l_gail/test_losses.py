"""The discriminator's objective against formulas written here."""

import math
from dataclasses import replace

import pytest
import torch

from l2l_gail import Discriminator, GAILConfig
from l2l_gail.losses import Batch, bernoulli_entropy, disc_stats, draw, objective

PLAIN = replace(GAILConfig(), gradient_penalty=0.0)


def setup(**kwargs):
    torch.manual_seed(0)
    discriminator = Discriminator(5, (7, 6), **kwargs).double()
    batch = Batch(torch.randn(9, 5).double() + 1, torch.randn(9, 5).double(), torch.rand(9, 1).double())
    return discriminator, batch, {name: p.detach().clone() for name, p in discriminator.named_parameters()}


def test_gradient_penalty_of_a_linear_discriminator_is_known():
    discriminator = Discriminator(5, ()).double()
    _, batch, _ = setup()
    weights = {name: p.detach().clone() for name, p in discriminator.named_parameters()}
    config = replace(PLAIN, gradient_penalty=3.0, gradient_target=0.25)
    norm = discriminator.layers[0].weight.norm()
    expected = objective(discriminator, batch, PLAIN)(weights) + 3.0 * (norm - 0.25) ** 2
    torch.testing.assert_close(objective(discriminator, batch, config)(weights), expected)


def test_loss_is_the_cross_entropy_of_ho_and_ermon_and_entropy_bonus_label_smoothing_and_mixup():
    discriminator, batch, weights = setup()
    base = objective(discriminator, batch, PLAIN)(weights)
    logits = discriminator(torch.cat([batch.expert, batch.policy]))
    p = logits.sigmoid()
    torch.testing.assert_close(base, -p[:9].log().mean() - (1 - p[9:]).log().mean())

    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(bernoulli_entropy(logits), entropy)
    bonus = objective(discriminator, batch, replace(PLAIN, entropy_bonus=0.5))(weights)
    torch.testing.assert_close(bonus, base - 0.5 * entropy.mean())

    control = objective(discriminator, batch, replace(PLAIN, disc_control=3.0))(weights)
    torch.testing.assert_close(control, base + 1.5 * ((p[:9] - 0.5) ** 2).mean() + 1.5 * ((p[9:] - 0.5) ** 2).mean())
    linear = objective(discriminator, batch, replace(PLAIN, disc_loss="wasserstein"))(weights)
    torch.testing.assert_close(linear, logits[9:].mean() - logits[:9].mean())

    smoothed = objective(discriminator, batch, replace(PLAIN, label_smoothing=0.1))(weights)
    target = torch.cat([torch.full((9,), 0.9), torch.full((9,), 0.1)]).double()
    torch.testing.assert_close(smoothed, -2 * (target * p.log() + (1 - target) * (1 - p).log()).mean())

    mixed = discriminator(batch.mixing * batch.expert + (1 - batch.mixing) * batch.policy).sigmoid()
    label = batch.mixing.squeeze(1)
    expected = -2 * (label * mixed.log() + (1 - label) * (1 - mixed).log()).mean()
    torch.testing.assert_close(objective(discriminator, batch, replace(PLAIN, mixup=True))(weights), expected)


def test_gradients_of_the_penalised_objective_also_where_the_input_gradient_vanishes():
    discriminator, batch, weights = setup()
    f = objective(discriminator, batch, replace(GAILConfig(), entropy_bonus=0.1))
    inputs = [weight.requires_grad_() for weight in weights.values()]
    assert torch.autograd.gradcheck(lambda *ws: f(dict(zip(weights, ws, strict=True))), inputs)
    zero = {name: torch.zeros_like(weight).requires_grad_() for name, weight in weights.items()}
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(f(zero), list(zero.values())))


def test_spectral_norm_divides_by_the_largest_singular_value():
    discriminator, batch, weights = setup(spectral_norm=True)
    discriminator.refresh(iterations=200)
    x = batch.expert
    for index, layer in enumerate(discriminator.layers):
        sigma = torch.linalg.svdvals(layer.weight)[0]
        x = x @ (layer.weight / sigma).T + layer.bias
        x = x.tanh() if index < 2 else x
    torch.testing.assert_close(discriminator(batch.expert), x.squeeze(-1))
    before = [b.clone() for b in discriminator.buffers()]
    objective(discriminator, batch, PLAIN)(weights)
    assert all(torch.equal(a, b) for a, b in zip(before, discriminator.buffers(), strict=True))


def test_draw_is_seeded_and_takes_rows_of_each_kind():
    expert, policy = torch.arange(4.0).unsqueeze(1), 10 + torch.arange(6.0).unsqueeze(1)
    one, two = (draw(expert, policy, 50, torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert set(one.expert.flatten().tolist()) == {0, 1, 2, 3}
    assert set(one.policy.flatten().tolist()) <= set(range(10, 16))
    assert ((one.mixing >= 0) & (one.mixing <= 1)).all()


@pytest.mark.parametrize(("slope", "accuracy"), [(1.0, 1.0), (50.0, 1.0), (-50.0, 0.0)])
def test_health(slope, accuracy):
    ones = torch.ones(8, 3)
    figures = disc_stats(lambda x: slope * x.sum(1), ones, -ones)  # logits of 3 and -3 times the slope
    assert figures["loss"] == pytest.approx(2 * math.log1p(math.exp(-3 * slope)), rel=1e-5)
    assert figures["acc"] == figures["acc_expert"] == figures["acc_gen"] == accuracy
    assert figures["logit_gap"] == pytest.approx(6 * slope)
    p = 1 / (1 + math.exp(-3 * slope))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p) if slope == 1 else 0.0
    assert figures["entropy"] == pytest.approx(entropy, abs=1e-5)
