"""Generators continue bit for bit behind a checkpoint."""

import random

import numpy as np
import torch

from l2l_experiment import checkpoint, randomness

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


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
    checkpoint.save(tmp_path, randomness.state_dict(), step=1)
    expected = draws()
    draws()
    randomness.load_state_dict(checkpoint.latest(tmp_path))
    assert draws() == expected


def test_devices_that_are_not_there_are_passed_over():
    state = randomness.state_dict()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    randomness.load_state_dict(state | {"cuda": [*state["cuda"], *[torch.get_rng_state()] * (1 + count)]})
