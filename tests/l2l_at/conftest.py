"""What several tests of adversarial training need."""

import pytest
import torch
from torch import nn

from l2l_at.data import Batch, Images, Task


@pytest.fixture(scope="session")
def small_images():
    """A task of CIFAR's shape, for networks with batch normalisation."""
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(0, 256, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(integers, torch.arange(64) % 10, 255)
    return Task("cifar10", 10, images, images, images, augment=True)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(12, 1, 8, 8, generator=generator)
    images = images.where(images > 0.4, torch.zeros(()))  # as in digits, many pixels lie on the box
    return Batch(images, torch.randint(0, 10, (12,), generator=generator), torch.arange(12))


@pytest.fixture
def model():
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 64, 10)
    )
    network(torch.rand(16, 1, 8, 8))  # running moments that differ from a batch's
    return network
