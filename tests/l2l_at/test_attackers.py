"""Learned attackers: published sizes, bounds, starting points, zero gradients."""

import pytest
import torch

from l2l_at.attackers import PublishedAttacker, ResidualAttacker, Slim, normalised, tiny, two_layer, wide
from l2l_experiment.errors import UserError


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("network", "with_gradient", "image_only"),
    # Published counts; those of wide and two-layer less one scale that their forward pass does not use.
    [(wide, 1_747_852 - 1, 1_746_124 - 1), (Slim, 1_434_359, 1_430_822), (two_layer, 354_056 - 1, 352_328 - 1)],
)
def test_published_sizes(network, with_gradient, image_only):
    assert count(network(6, 3)) == with_gradient
    assert count(network(3, 3)) == image_only


def test_tiny_is_at_most_a_tenth_of_a_million():
    assert count(tiny(9, 3)) <= 100_000


@pytest.mark.parametrize("network", [wide, Slim, two_layer, tiny])
def test_networks_keep_the_size(network):
    assert network(6, 3)(torch.rand(2, 6, 8, 8)).shape == (2, 3, 8, 8)


def test_normalised_by_hand():
    gradient = torch.tensor([[[[2.0, -4.0]]], [[[0.5, 0.0]]]])
    expected = torch.tensor([[[[0.5, -1.0]]], [[[0.125, 0.0]]]])
    torch.testing.assert_close(normalised(gradient, "batch", by="largest"), expected)
    per_sample = torch.tensor([[[[0.5, -1.0]]], [[[1.0, 0.0]]]])
    torch.testing.assert_close(normalised(gradient, "sample", by="largest"), per_sample)
    by_mean = torch.tensor([[[[2 / 3, -4 / 3]]], [[[2.0, 0.0]]]])
    torch.testing.assert_close(normalised(gradient, "sample", by="mean"), by_mean)


@pytest.mark.parametrize("scale", ["sample", "batch"])
@pytest.mark.parametrize("by", ["largest", "mean"])
def test_a_zero_gradient_stays_zero(scale, by):
    assert (normalised(torch.zeros(2, 1, 3, 3), scale, by=by) == 0).all()


@pytest.mark.parametrize(
    "rule",
    [
        PublishedAttacker(tiny(2, 1, zero_head=False), 0.1),
        ResidualAttacker(1, 0.1, 0.1),
        ResidualAttacker(1, 0.1, 0.1, sees=()),
    ],
)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
def test_steps_are_finite_and_bounded(rule, size):
    images = torch.rand(2, 1, 8, 8)
    step, _ = rule.on(images).update(size * torch.randn(2, 1, 8, 8), {}, torch.zeros_like(images))
    assert torch.isfinite(step).all()
    assert (step.abs() <= 0.1).all()


def test_residual_attacker_starts_as_a_soft_sign_step():
    images, gradient = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    step, _ = ResidualAttacker(1, 0.1, 0.05).on(images).update(gradient, {}, torch.zeros_like(images))
    unit = gradient.abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(step, 0.05 * torch.tanh(2 * (-gradient / unit).clamp(-3, 3)))


def test_residual_attacker_refuses_what_it_cannot_see():
    with pytest.raises(UserError, match="colour"):
        ResidualAttacker(1, 0.1, 0.1, sees=("colour",))
