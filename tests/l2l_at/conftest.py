"""What several tests of adversarial training need."""

import pytest
import torch
from torch import nn

from l2l_at import models
from l2l_at.batches import Batch
from l2l_at.datasets import DATASETS, Images, Task, load


@pytest.fixture(scope="session")
def small_images():
    """A task of CIFAR's shape, for networks with batch normalisation."""
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(0, 256, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(integers, torch.arange(64) % 10)
    return Task(DATASETS["cifar10"], images, images, images)


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


@pytest.fixture
def game(model, batch):
    """Classifier and batch in double precision."""
    return model.double(), batch._replace(images=batch.images.double())


@pytest.fixture
def smooth_game():
    """The same without batch normalisation, for formulas that treat samples one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Softplus(), nn.Linear(12, 10)).double()
    images = torch.rand(5, 1, 4, 4, dtype=torch.float64)
    images = images.where(images > 0.3, torch.zeros((), dtype=torch.float64))
    return model, Batch(images, torch.tensor([0, 3, 1, 9, 5]), torch.arange(5))


@pytest.fixture(scope="module")
def trained():
    """A small classifier trained for a moment on clean digits, and some test images."""
    torch.manual_seed(0)
    task = load("digits")
    model = models.build("small-cnn", DATASETS["digits"].normalisation, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    images, labels = task.train.take(slice(None))
    for _ in range(60):
        rows = torch.randint(0, len(labels), (256,))
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), *task.test.subset(slice(0, 100)).take(slice(None))
