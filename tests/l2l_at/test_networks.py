"""Classifiers and learned attackers: published sizes, normalisation inside, bounds, starting points, zero gradients."""

import itertools

import pytest
import torch

from l2l_at import models
from l2l_at.attackers import PublishedAttacker, ResidualAttacker, Slim, normalised, tiny, two_layer, wide
from l2l_at.datasets import DATASETS
from l2l_experiment.errors import UserError


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "weights"),
    # PreActResNet-18 with a last batch normalisation has its 1,024 weights more than the form without.
    [("resnet18", 11_173_962), ("preactresnet18", 11_172_170), ("wrn-28-10", 36_479_194), ("wrn-34-10", 46_160_474)],
)
def test_published_sizes(name, weights):
    with torch.device("meta"):
        network = models.NETWORKS[name](3, 10)
    assert count(network) == weights


@pytest.mark.parametrize(
    ("name", "dataset", "shape"), [("small-cnn", "digits", (1, 8, 8)), ("preact-tiny", "cifar100", (3, 32, 32))]
)
def test_normalisation_is_inside(name, dataset, shape):
    moments = DATASETS[dataset].normalisation
    model, images = models.build(name, moments, 17).eval(), torch.rand(2, *shape)
    mean, deviation = (torch.tensor(v).view(-1, 1, 1) for v in moments)
    torch.testing.assert_close(model(images), model.network((images - mean) / deviation))
    assert model(images).shape == (2, 17)
    assert all("mean" not in name or "running" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet19", (3, 32, 32)), ("resnet18", (1, 8, 8)), ("small-cnn", (3, 32, 32))]
)
def test_unknown_or_unfit(name, shape):
    with pytest.raises(UserError, match="--model"):
        models.check(name, shape)


@pytest.mark.parametrize(
    ("network", "with_gradient", "image_only"),
    # Published counts; those of wide and two-layer less one scale that their forward pass does not use.
    [(wide, 1_747_852 - 1, 1_746_124 - 1), (Slim, 1_434_359, 1_430_822), (two_layer, 354_056 - 1, 352_328 - 1)],
)
def test_published_sizes_of_attackers(network, with_gradient, image_only):
    assert count(network(6, 3)) == with_gradient
    assert count(network(3, 3)) == image_only
    assert network(6, 3)(torch.rand(2, 6, 8, 8)).shape == (2, 3, 8, 8)


def test_normalised_by_hand():
    gradient = torch.tensor([[[[2.0, -4.0]]], [[[0.5, 0.0]]]])
    expected = torch.tensor([[[[0.5, -1.0]]], [[[0.125, 0.0]]]])
    torch.testing.assert_close(normalised(gradient, "batch", by="largest"), expected)
    per_sample = torch.tensor([[[[0.5, -1.0]]], [[[1.0, 0.0]]]])
    torch.testing.assert_close(normalised(gradient, "sample", by="largest"), per_sample)
    by_mean = torch.tensor([[[[2 / 3, -4 / 3]]], [[[2.0, 0.0]]]])
    torch.testing.assert_close(normalised(gradient, "sample", by="mean"), by_mean)
    for scale, by in itertools.product(("sample", "batch"), ("largest", "mean")):
        assert not normalised(torch.zeros(2, 1, 3, 3), scale, by=by).any()


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


def test_residual_attacker_refuses_what_it_cannot_see():
    with pytest.raises(UserError, match="colour"):
        ResidualAttacker(1, 0.1, 0.1, sees=("colour",))
