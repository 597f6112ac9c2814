"""What several tests of adversarial training need."""

import pytest
import torch

from l2l_at.data import Images, Task


@pytest.fixture(scope="session")
def small_images():
    """A task of CIFAR's shape, for networks with batch normalisation."""
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(0, 256, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(integers, torch.arange(64) % 10, 255)
    return Task("cifar10", 10, images, images, images, augment=True)
