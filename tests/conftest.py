"""For all tests: one thread each, since as many processes run them as there are cores."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start
torch.set_num_threads(1)


def quick(values, *kept):
    """Parameters of a test: those of `kept` run by default, the others with `pytest -m slow`."""
    values = list(values)
    assert all(value in values for value in kept)
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.fixture
def benchmarks(monkeypatch):
    """Benchmarks are scripts; this lets a test import them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


@pytest.fixture
def elsewhere(monkeypatch) -> torch.device:
    """A device without data, in place of a GPU: torch refuses operations on tensors of it and of the CPU together. What
    is read of it is 1, or an array of ones."""

    def read(name, value):
        usual = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self: value(self) if self.is_meta else usual(self))

    read("__bool__", lambda tensor: True)
    read("__float__", lambda tensor: 1.0)
    read("item", lambda tensor: 1.0)
    read("tolist", lambda tensor: torch.ones(tensor.shape).tolist())
    read("cpu", lambda tensor: torch.ones(tensor.shape, dtype=tensor.dtype))
    return torch.device("meta")
