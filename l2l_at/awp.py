"""Adversarial weight perturbation, on top of any method (Wu et al., 2020)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def perturbed(model: nn.Module, size: float) -> Iterator[None]:
    """The model with its weights moved up the loss whose gradients it holds; on leaving they are moved back.

    Each weight of at least two dimensions moves along its gradient by `size` times its own norm. What happens to the
    weights inside (an optimiser's step) stays.
    """
    shifts = []
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "weight" in name and weight.grad is not None:
                shift = weight.grad * (size * weight.norm() / (weight.grad.norm() + 1e-20))
                weight.add_(shift)
                shifts.append((weight, shift))
    torch.clear_autocast_cache()  # under autocast it would go on with the weights before the move
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, shift in shifts:
                weight.sub_(shift)
        torch.clear_autocast_cache()
