"""What a follower is: whoever moves the discriminator once a round."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bilevel.response import Objective
from l2l_experiment.devices import all_finite
from l2l_experiment.errors import Diverged


class Objectives(NamedTuple):
    """What a follower works on in a round: functions that draw an objective of the discriminator's named weights."""

    train: Callable[[], Objective]  # for a step
    score: Callable[[], Objective]  # for judging steps, on transitions that `train` does not draw from


class Follower(Protocol):
    """Moves the discriminator once a round."""

    holdout: float  # share of every demonstration and rollout that it wants held out from `Objectives.train`, in [0, 1)
    skipped: int  # fits of something learned that were skipped because their score was NaN or infinite

    def answer(self, objectives: Objectives, progress: float) -> dict[str, float]:
        """Move the discriminator; returns figures for the log. `progress` is the share of training done."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as a tree; the discriminator's weights are saved with the discriminator."""

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Continue from a `state_dict`; the discriminator has its weights already."""


def trainable(discriminator: nn.Module) -> dict[str, nn.Parameter]:
    """The named weights that require a gradient: a module of one's own may keep some of its weights."""
    return {name: weight for name, weight in discriminator.named_parameters() if weight.requires_grad}


def weights_of(discriminator: nn.Module) -> dict[str, Tensor]:
    """A copy of the named weights that are trained, without a graph."""
    return {name: weight.detach().clone() for name, weight in trainable(discriminator).items()}


@torch.no_grad()
def distance(weights: dict[str, Tensor], before: dict[str, Tensor]) -> float:
    """How far the weights have moved, in Euclidean length."""
    squares = [(weights[name] - before[name]).square().sum() for name in before]
    return float(torch.stack(squares).sum().sqrt())


def require_finite(weights: dict[str, Tensor]) -> None:
    """Diverged if a weight is NaN or infinite."""
    if not all_finite(weights.values()):
        raise Diverged("the discriminator's weights are NaN or infinite; a smaller --disc-learning-rate may help")


@torch.no_grad()
def commit(weights: dict[str, Tensor], discriminator: nn.Module) -> None:
    """Write a follower's answer into the live discriminator; Diverged if it is NaN or infinite."""
    require_finite(weights)
    for name, parameter in trainable(discriminator).items():
        parameter.copy_(weights[name])
