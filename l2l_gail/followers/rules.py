"""Followers that step by an update rule of `bilevel`: Adam, and a learned rule that starts as Adam."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bilevel import Adam, Coordinatewise, HypergradientAdam, LearnedFollower, UpdateRule, unroll
from bilevel.response import Objective
from bilevel.tree import flatten, map_tensors
from l2l_experiment.errors import UserError
from l2l_gail.config import GAILConfig
from l2l_gail.followers.base import Objectives, commit, distance, weights_of
from l2l_gail.followers.schedules import SCHEDULES


class RuleFollower:
    """`disc_updates` steps of an update rule a round, with the rule's memory kept over rounds."""

    holdout, skipped = 0.0, 0

    def __init__(self, discriminator: nn.Module, config: GAILConfig, rule: UpdateRule) -> None:
        self.discriminator, self.config, self.rule = discriminator, config, rule
        self.weights = weights_of(discriminator)
        self.memory = rule.init(self.weights)

    def answer(self, objectives: Objectives, progress: float) -> dict[str, float]:
        before, figures = self.weights, self.move(objectives, progress)
        commit(self.weights, self.discriminator)
        return figures | {"update_norm": distance(self.weights, before)}

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        """Move `weights` and `memory` by a round's steps; returns figures for the log."""
        for _ in range(self.config.disc_updates):
            self.step(objectives.train())
        return {}

    def step(self, objective: Objective) -> None:
        """One step of the rule."""
        answer = unroll(objective, self.rule, self.weights, steps=1, state=self.memory)
        self.weights, self.memory = answer.variable, answer.state

    def rules(self) -> dict[str, UpdateRule]:
        """Rules that work on this memory, by name, to be drawn beside each other."""
        return {self.config.follower: self.rule}

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        self.weights = weights_of(self.discriminator)
        device = next(self.discriminator.parameters()).device
        memory = tree["memory"]
        if isinstance(self.rule, Coordinatewise) and isinstance(
            memory["momenta"], dict
        ):  # of earlier checkpoints: dicts of tensors, one for each momentum
            kept = {name: flatten(memory[name]) for name in ("square", "start") if name in memory}
            memory = memory | kept | {"momenta": torch.stack([flatten(one) for one in memory["momenta"].values()])}
        # Counts stay where they were made, on the CPU.
        self.memory = map_tensors(lambda t: t.to(device) if t.is_floating_point() and t.dim() else t, memory)


class AdamFollower(RuleFollower):
    """The baseline: Adam (Kingma and Ba, 2015)."""

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        super().__init__(discriminator, config, Adam(config.disc_learning_rate))

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        rate = self.config.disc_learning_rate * SCHEDULES[self.config.disc_schedule](progress)
        self.rule = replace(self.rule, rate=rate)
        return super().move(objectives, progress) | {"rate": rate}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rate": self.rule.rate}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        super().load_state_dict(tree)
        self.rule = replace(self.rule, rate=tree.get("rate", self.rule.rate))


class HypergradientFollower(RuleFollower):
    """Adam whose learning rate follows the hypergradient (Baydin et al., 2018)."""

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        super().__init__(discriminator, config, HypergradientAdam(config.disc_learning_rate, config.disc_hyper_rate))

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        return super().move(objectives, progress) | {"rate": float(self.memory["rate"])}


class L2LFollower(RuleFollower):
    """L2L: the discriminator's step is a learned rule, fitted every `follower_steps` steps while it answers. The
    abstract of Jiang et al. (2021) names an extension to imitation in one sentence, and their code has none; this
    follower is our design. It keeps their template: the hand-designed step of the inner problem is replaced by a
    network that is trained jointly on the inner objective."""

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        hidden = config.follower_hidden if config.follower != "l2l-rate" else 0
        rule = Coordinatewise(config.disc_learning_rate, hidden=hidden, anchored=bool(config.follower_anchored))
        rule.to(next(discriminator.parameters()).device)
        super().__init__(discriminator, config, rule)
        self.holdout = config.holdout
        groups = [{"params": [rule.log_rate], "lr": config.log_rate_learning_rate}]
        if rule.network is not None:
            groups.append({"params": [*rule.network.parameters()], "lr": config.follower_learning_rate})
        self.learner = LearnedFollower(rule, torch.optim.Adam(groups), steps=config.follower_steps)

    @property
    def skipped(self) -> int:
        return self.learner.skipped

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        self.memory["progress"] = torch.full_like(self.memory["progress"], progress)
        fits = []
        for _ in range(self.config.disc_updates // self.config.follower_steps):
            drawn = [objectives.train() for _ in range(self.config.follower_steps)]
            if self.config.freeze_follower:
                for objective in drawn:
                    self.step(objective)
            else:
                answer, figures = self.learner.fit([*drawn, objectives.score()], self.weights, state=self.memory)
                self.weights, self.memory = answer.variable, answer.state
                if (limit := self.config.log_rate_limit) is not None:
                    # A rule whose every step makes its score worse lowers its rate until it stops for good.
                    self.rule.log_rate.data.clamp_(-math.log(limit), math.log(limit))
                fits.append(figures)
        figures = {key: sum(fit[key] for fit in fits) / len(fits) for key in (fits[0] if fits else ())}
        rule, memory = self.rule, self.memory
        if fits:  # Adam would have made its last step at the rate that the rule started from
            adam = rule.rate * float(rule.adam_direction(memory).norm())
            figures["step_over_adam"] = fits[-1]["last_step"] / adam if adam else float("nan")
        log_rate = rule.log_rate.detach()
        return figures | {"log_rate": float(log_rate), "rate": rule.rate * float(log_rate.exp())}

    def rules(self) -> dict[str, UpdateRule]:
        # Without network and with a log rate of zero the rule is Adam, on the same memory.
        return {"Adam": Coordinatewise(self.rule.rate, hidden=0), "learned rule": self.rule}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"learner": self.learner.state_dict(), "anchored": self.rule.anchored}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        super().load_state_dict(tree)
        self.learner.load_state_dict(tree["learner"])

    def warm_start(self, rule: Coordinatewise, source: str) -> None:
        """Take over a rule that was learned elsewhere; rate, memory and discriminator stay as they are."""
        if rule.anchored != self.rule.anchored:
            raise UserError(f"the follower of {source} needs --follower-anchored {rule.anchored}")
        theirs, own = rule.state_dict(), self.rule.state_dict()
        if {name: value.shape for name, value in theirs.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(f"the follower of {source} has another shape: use its --follower and --follower-hidden")
        self.rule.load_state_dict(theirs)
