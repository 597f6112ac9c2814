"""Classifiers: published sizes, normalisation inside."""

import pytest
import torch

from l2l_at import models
from l2l_at.datasets import DATASETS
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
