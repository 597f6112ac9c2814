"""Where networks live: the device that a setting names."""

from collections.abc import Iterable

import torch
from torch import Tensor

from l2l_experiment.errors import UserError


def resolve(name: str, *, auto: str = "cuda") -> torch.device:
    """The device that a setting names; `auto` is `cuda` (where there is one) or `cpu`, as suits the tool.

    UserError for an unknown name, and for CUDA where torch has none."""
    if name == "auto":
        return torch.device("cuda" if auto == "cuda" and torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu or cuda, not {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine has no CUDA device that torch can use; use --device cpu")
    if device.type == "cuda" and device.index is not None and device.index >= (count := torch.cuda.device_count()):
        raise UserError(f"--device {name}: this machine has {count} CUDA devices, the last is cuda:{count - 1}")
    return device


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number is NaN or infinite; a GPU is waited for once."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
