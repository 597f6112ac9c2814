"""The process as commands set it up."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from l2l_experiment import process


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_and_memory_are_set(threads, monkeypatch):
    given = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=given.__setitem__))
    process.configure(2)
    assert torch.get_num_threads() == 2
    assert given == {-3: 2**25, -1: 10**9}  # M_MMAP_THRESHOLD at its largest, M_TRIM_THRESHOLD


@pytest.mark.parametrize("library", [SimpleNamespace(), None])
def test_another_c_library_is_left_alone(threads, monkeypatch, library):
    def load(name):
        if library is None:
            raise OSError("there is none")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    process.configure(1)
    assert torch.get_num_threads() == 1
