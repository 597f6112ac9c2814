"""Weight averaging (EMA, SWA) and adversarial weight perturbation (AWP)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, kind: Literal["ema", "swa"], decay: float) -> AveragedModel:
    """A running average of a model's weights and buffers; its `module` is the averaged model. The first update copies.
    EMA's decay is warmed up, so that early weights are forgotten soon. Running moments of batch normalisation are
    averaged along, for they must fit the averaged weights; counters are copied."""

    def move(mine: list[Tensor], theirs: list[Tensor], _: Tensor) -> None:
        if mine[0].is_floating_point():
            count = int(average.n_averaged)  # on the CPU: that in the arguments would have a GPU waited for
            share = 1 / (count + 1) if kind == "swa" else 1 - min(decay, (1 + count) / (10 + count))
            torch._foreach_lerp_(mine, theirs, share)
        else:
            torch._foreach_copy_(mine, theirs)

    average = AveragedModel(model, multi_avg_fn=move, use_buffers=True)
    average.module.requires_grad_(False)
    return average


@contextmanager
def perturbed(model: nn.Module, size: float) -> Iterator[None]:
    """AWP (Wu et al., 2020): within the block, every weight of two or more dimensions is shifted along its `.grad` by
    `size` times its norm; afterwards the shift is subtracted. Optimiser steps made inside the block are kept."""
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
