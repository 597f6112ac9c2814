"""Devices by name."""

import pytest
import torch

from l2l_experiment import devices
from l2l_experiment.errors import UserError


@pytest.mark.parametrize("cuda", [False, True])
def test_auto_is_what_suits_the_tool(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert devices.resolve("auto", auto="cpu").type == "cpu"
    assert devices.resolve("auto").type == ("cuda" if cuda else "cpu")
    assert devices.resolve("cpu") == torch.device("cpu")
    if cuda:
        assert devices.resolve("cuda:0") == torch.device("cuda", 0)
    else:
        with pytest.raises(UserError, match="no CUDA device that torch can use; use --device cpu"):
            devices.resolve("cuda:0")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x", ""])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="must be auto, cpu or cuda, not"):
        devices.resolve(name)
