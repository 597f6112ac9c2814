"""Generators, optimisers and modules continue bit for bit behind a checkpoint."""

import random

import numpy as np
import pytest
import torch

from l2l_experiment import checkpoint, randomness

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def through_disk(folder, tree):
    checkpoint.save(folder, tree, step=1)
    return checkpoint.latest(folder)


def draws():
    generator = np.random  # the global one is what is under test
    return [
        random.gauss(0, 1),
        random.random(),
        *generator.standard_normal(3),
        *(x for device in DEVICES for x in torch.randn(3, device=device).tolist()),
    ]


def test_generators_continue_bit_by_bit(tmp_path):
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    draws()  # an odd number of gaussians: the second of a pair waits inside the generators
    loaded = through_disk(tmp_path, randomness.state_dict())
    expected = draws()
    draws()
    randomness.load_state_dict(loaded)
    assert draws() == expected


def test_devices_that_are_not_there_are_passed_over():
    state = randomness.state_dict()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    randomness.load_state_dict(state | {"cuda": [*state["cuda"], *[torch.get_rng_state()] * (1 + count)]})


def parameters(device):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 2, device=device)), torch.nn.Parameter(torch.randn((), device=device))]


def train(optimizer, weights, start, stop):
    for step in range(start, stop):
        optimizer.zero_grad()
        (sum((weight - step).square().sum() for weight in weights)).backward()
        optimizer.step()


OPTIMIZERS = [
    lambda w: torch.optim.Adam([{"params": w[:1], "lr": 0.3}, {"params": w[1:]}], amsgrad=True),
    lambda w: torch.optim.AdamW(w, lr=torch.tensor(0.1), capturable=False, foreach=False),
    lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True),
    lambda w: torch.optim.RMSprop(w, lr=0.1),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_continues_bit_by_bit(tmp_path, make, device):
    weights = parameters(device)
    optimizer = make(weights)
    train(optimizer, weights, 0, 5)
    optimizer.param_groups[0]["lr"] = 0.05  # a schedule has moved it
    loaded = through_disk(tmp_path, {"optimizer": optimizer.state_dict(), "weights": weights})
    train(optimizer, weights, 5, 10)

    resumed = [torch.nn.Parameter(weight.to(device)) for weight in loaded["weights"]]
    other = make(resumed)
    other.load_state_dict(loaded["optimizer"])
    train(other, resumed, 5, 10)
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))
    assert repr(other.state_dict()) == repr(optimizer.state_dict())
