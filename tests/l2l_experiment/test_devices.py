"""Devices by name."""

import pytest
import torch

from l2l_experiment import devices
from l2l_experiment.errors import UserError


@pytest.mark.parametrize("cuda", [False, True])
def test_a_device_is_the_one_that_the_name_means_or_refused(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    assert devices.resolve("auto", auto="cpu").type == devices.resolve("cpu").type == "cpu"
    assert devices.resolve("auto").type == ("cuda" if cuda else "cpu")
    if cuda:
        assert devices.resolve("cuda:0") == torch.device("cuda", 0)
        with pytest.raises(UserError, match="has 1 CUDA devices, the last is cuda:0"):
            devices.resolve("cuda:1")
    else:
        with pytest.raises(UserError, match="no CUDA device that torch can use; use --device cpu"):
            devices.resolve("cuda:0")
    for name in ("gpu", "mps", "cuda:x", ""):
        with pytest.raises(UserError, match=f"must be auto, cpu or cuda, not '{name}'"):
            devices.resolve(name)
