"""Averages of a classifier's weights: exponential, or equal."""

import copy

import torch
from torch import Tensor, nn

from l2l_experiment.errors import UserError


class Average:
    """A running average of a model's weights and buffers; `module` is the averaged model.

    The first update copies; update number n (from 0) then moves the average by `share(n)` towards the model. Running
    moments of batch normalisation are averaged along, for they must fit the averaged weights; counters are copied.
    """

    def __init__(self, model: nn.Module, kind: str, decay: float) -> None:
        if kind not in ("ema", "swa"):
            raise UserError(f"--average must be ema, swa or none, got {kind!r}")
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.kind, self.decay, self.count = kind, decay, 0

    def share(self, count: int) -> float:
        """How far the average moves: 1 at first; EMA's decay is warmed up, so that early weights are forgotten soon."""
        if count == 0:
            return 1.0
        return 1 / (count + 1) if self.kind == "swa" else 1 - min(self.decay, (1 + count) / (10 + count))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in a model's weights."""
        share = self.share(self.count)
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        moving = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in moving], [theirs for _, theirs in moving], share)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
        self.count += 1

    def state(self) -> dict[str, dict[str, Tensor] | int]:
        """What `restore` takes."""
        return {"module": self.module.state_dict(), "count": self.count}

    def restore(self, state: dict) -> None:
        """Continue from a `state`."""
        self.module.load_state_dict(state["module"])
        self.count = state["count"]
