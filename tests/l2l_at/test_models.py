"""Classifiers: published sizes, normalisation inside."""

import pytest
import torch

from l2l_at import models
from l2l_at.data import load
from l2l_experiment.errors import UserError


@pytest.mark.parametrize(
    ("name", "weights"),
    # PreActResNet-18 with a last batch normalisation has its 1,024 weights more than the form without.
    [("resnet18", 11_173_962), ("preactresnet18", 11_172_170), ("wrn-28-10", 36_479_194), ("wrn-34-10", 46_160_474)],
)
def test_published_sizes(name, weights):
    with torch.device("meta"):
        network = models.NETWORKS[name](3, 10)
    assert sum(p.numel() for p in network.parameters()) == weights


@pytest.mark.parametrize(
    ("name", "dataset", "shape"), [("small-cnn", "digits", (1, 8, 8)), ("preact-tiny", "cifar100", (3, 32, 32))]
)
def test_logits_have_the_right_shape(name, dataset, shape):
    assert models.build(name, dataset, 17)(torch.rand(2, *shape)).shape == (2, 17)


def test_normalisation_is_inside():
    model = models.build("preact-tiny", "cifar10", 10).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in models.MOMENTS["cifar10"])
    torch.testing.assert_close(model(images), model.network((images - mean) / deviation))
    assert all("mean" not in name or "running" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("name", "dataset"), [("resnet19", "cifar10"), ("resnet18", "digits"), ("small-cnn", "cifar10")]
)
def test_unknown_or_unfit(name, dataset):
    with pytest.raises(UserError, match="--model"):
        models.build(name, dataset, 10)


def test_moments_of_digits_are_those_of_the_images():
    images = load("digits").train.take(slice(None))[0]
    mean, deviation = models.MOMENTS["digits"]
    assert float(images.mean()) == pytest.approx(mean[0], abs=0.005)
    assert float(images.std()) == pytest.approx(deviation[0], abs=0.005)
