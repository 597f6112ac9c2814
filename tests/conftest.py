"""For all tests: one thread each, since as many processes run them as there are cores."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start
torch.set_num_threads(1)


@pytest.fixture
def benchmarks(monkeypatch):
    """Benchmarks are scripts; this lets a test import them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
