"""The state of all random generators as one tree, exactly."""

import random
from typing import Any

import numpy as np
import torch


def state_dict() -> dict[str, Any]:
    """State of the generators of python, numpy (the global one), torch, and every CUDA device."""
    # Asking a GPU that nobody uses would take a few hundred MB of its memory.
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  libraries in the loop still draw from it
        "torch": torch.get_rng_state(),
        "cuda": list(devices),
    }


def load_state_dict(tree: dict[str, Any]) -> None:
    """The inverse of `state_dict`; CUDA devices that this machine does not have are passed over."""
    random.setstate(tree["python"])
    np.random.set_state(tree["numpy"])  # noqa: NPY002
    torch.set_rng_state(tree["torch"])
    for index, state in enumerate(tree["cuda"]):
        if torch.cuda.is_available() and index < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, index)
