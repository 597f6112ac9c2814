"""Averages of a classifier's weights: exponential, or equal."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, kind: Literal["ema", "swa"], decay: float) -> AveragedModel:
    """A running average of a model's weights and buffers; its `module` is the averaged model.

    The first update copies. EMA's decay is warmed up, so that early weights are forgotten soon. Running moments of
    batch normalisation are averaged along, for they must fit the averaged weights; counters are copied.
    """

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
