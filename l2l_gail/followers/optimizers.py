"""Followers that step by an optimiser of torch's form: those of `torch.optim`, and some that need no learning rate."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bilevel.response import value_and_gradient
from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig
from l2l_gail.followers.base import Objectives, distance, require_finite, trainable, weights_of
from l2l_gail.followers.schedules import SCHEDULES


class OptimizerFollower:
    """`disc_updates` steps of an optimiser a round, on the discriminator's own weights.

    `make` makes the optimiser from the weights; the learning rate that it gives them is scaled by `disc_schedule`."""

    holdout, skipped = 0.0, 0

    def __init__(
        self, discriminator: nn.Module, config: GAILConfig, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        self.discriminator, self.config = discriminator, config
        self.optimizer = make([*trainable(discriminator).values()])
        if len(self.optimizer.param_groups) != 1:
            raise UserError(f"a follower's optimiser has one parameter group, not {len(self.optimizer.param_groups)}")
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise UserError(
                "LBFGS evaluates the loss several times a step, and a follower once; take another optimiser"
            )
        self.rate = self.optimizer.param_groups[0]["lr"]

    def answer(self, objectives: Objectives, progress: float) -> dict[str, float]:
        before, weights = weights_of(self.discriminator), trainable(self.discriminator)
        (group,) = self.optimizer.param_groups
        group["lr"] = self.rate * SCHEDULES[self.config.disc_schedule](progress)
        self._use_averaged_weights(False)
        for _ in range(self.config.disc_updates):
            _, gradient = value_and_gradient(objectives.train(), weights, differentiable=False)
            for name, weight in weights.items():
                weight.grad = gradient[name]
            self.optimizer.step()
        self._use_averaged_weights(True)
        self.optimizer.zero_grad()
        require_finite(weights)
        # Prodigy and D-Adaptation find `d` and step by d·lr.
        figures = {"rate": float(group.get("d", 1.0)) * float(group.get("scheduled_lr", group["lr"]))}
        return figures | {"update_norm": distance(weights, before)}

    def _use_averaged_weights(self, averaged: bool) -> None:
        """Switch a schedule-free optimiser to its averaged weights (for rewards), or back to the ones it trains."""
        switch = getattr(self.optimizer, "eval" if averaged else "train", None)
        if switch is not None:
            switch()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(tree["optimizer"])


def optimizer_follower(
    package: str, name: str, rate: float | None
) -> Callable[[nn.Module, GAILConfig], OptimizerFollower]:
    """A factory of followers that use an optimiser of torch or of an optional package, with that optimiser's defaults
    except for the learning rate: `rate`, or `disc_learning_rate` if None."""

    def make(discriminator: nn.Module, config: GAILConfig) -> OptimizerFollower:
        try:
            kind = getattr(importlib.import_module(package), name)
        except ImportError as error:
            message = f'--follower {config.follower} needs {package}: pip install "l2l[optimizers]"'
            raise UserError(message) from error
        given = config.disc_learning_rate if rate is None else rate
        return OptimizerFollower(discriminator, config, lambda weights: kind(weights, lr=given))

    return make
