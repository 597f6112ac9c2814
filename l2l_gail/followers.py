"""Who updates the discriminator: the follower's protocol, Adam, and a learned rule that starts as Adam.

To add a follower, write a class with the verbs of `Follower` (subclass `RuleFollower` if an update rule makes its
steps) and give it a row in `FOLLOWERS`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bilevel import Adam, Coordinatewise, LearnedFollower, UpdateRule, unroll
from bilevel.response import Objective
from bilevel.rules import adam_direction
from bilevel.tree import flatten, map_tensors
from l2l_experiment.errors import Diverged, UserError
from l2l_experiment.settings import refuse_idle
from l2l_gail.config import GAILConfig, tuned


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
        squares = [(self.weights[name] - before[name]).square().sum() for name in before]
        return figures | {"update_norm": float(torch.stack(squares).sum().sqrt())}

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
        # Counts stay where they were made, on the CPU.
        self.memory = map_tensors(lambda t: t.to(device) if t.is_floating_point() and t.dim() else t, tree["memory"])


class AdamFollower(RuleFollower):
    """The baseline: Adam (Kingma and Ba, 2015)."""

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        super().__init__(discriminator, config, Adam(config.disc_learning_rate))

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        return super().move(objectives, progress) | {"rate": self.rule.rate}


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
            mean, square = memory["momenta"][str(rule.betas[0])], memory["square"]
            direction = adam_direction(mean, square, float(memory["count"]), rule.betas, rule.eps)
            adam = rule.rate * float(flatten(direction).norm())
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

    def carry(self, tree: dict[str, Any], source: str) -> None:
        """Take over the rule of another run's `state_dict`; memory and discriminator stay as they are."""
        if "learner" not in tree:
            raise UserError(f"{source} has no learned follower; --follower-from needs a run with --l2l")
        if tree["anchored"] != self.rule.anchored:
            raise UserError(f"the follower of {source} needs --follower-anchored {tree['anchored']}")
        theirs, own = tree["learner"]["rule"], self.rule.state_dict()
        if {name: value.shape for name, value in theirs.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(f"the follower of {source} has another shape: use its --follower and --follower-hidden")
        self.rule.load_state_dict(theirs)


@dataclass(frozen=True)
class Recipe:
    """A follower's name in the world, how it is made, and what it takes."""

    summary: str
    source: str
    make: Callable[[nn.Module, GAILConfig], Follower]
    takes: frozenset[str] = frozenset()  # what it reads of the settings that only some read; others are refused
    settle: Callable[[GAILConfig], GAILConfig] = replace  # decides what is open, refuses misfits; by default a copy


def settle_learned(config: GAILConfig) -> GAILConfig:
    """The settings of a learned rule with the objective of its score decided."""
    steps, updates = config.follower_steps, config.disc_updates
    if updates % steps:
        raise UserError(f"--follower-steps {steps} must divide --disc-updates, which is {updates}")
    transitions = config.n_envs * config.n_steps
    if config.holdout and not 0 < round(config.holdout * transitions) < transitions:
        raise UserError(f"--holdout {config.holdout} of a round's {transitions} transitions leaves one side empty")
    smoothing = config.label_smoothing if config.score_smoothing is None else config.score_smoothing
    # With neither, the best score is a discriminator that has won, whose reward is flat.
    default = config.gradient_penalty or (0.0 if smoothing else 1.0)
    penalty = default if config.score_penalty is None else config.score_penalty
    return replace(config, score_penalty=penalty, score_smoothing=smoothing)


def settle_network(config: GAILConfig) -> GAILConfig:
    """The same, and what the rule's network sees of a weight."""
    anchored = not config.gradient_penalty if config.follower_anchored is None else config.follower_anchored
    return replace(settle_learned(config), follower_anchored=anchored)


LEARNED = frozenset({"follower_steps", "log_rate_learning_rate", "log_rate_limit", "holdout", "freeze_follower"})
LEARNED |= {"score_smoothing", "score_penalty"}
NETWORK = LEARNED | {"follower_hidden", "follower_learning_rate", "follower_anchored"}

FOLLOWERS: dict[str, Recipe] = {
    "adam": Recipe("Adam", "Kingma and Ba, 2015", AdamFollower),
    "l2l": Recipe("learned rule", "ours, after Jiang et al., 2021", L2LFollower, NETWORK, settle_network),
    "l2l-rate": Recipe("Adam with a learned log rate", "ours", L2LFollower, LEARNED, settle_learned),
}


def settled(config: GAILConfig) -> GAILConfig:
    """The settings with all decided that their follower leaves open; UserError for those that change nothing."""
    if config.follower not in FOLLOWERS:
        raise UserError(f"--follower must be one of {', '.join(FOLLOWERS)}, got {config.follower!r}")
    recipe, usual = FOLLOWERS[config.follower], (GAILConfig(), tuned(config.env, config.leader))
    particular = frozenset().union(*(recipe.takes for recipe in FOLLOWERS.values()))
    refuse_idle(config, usual, particular - recipe.takes, f"for --follower {config.follower}")
    refuse_idle(config, usual, OF_OTHER_LEADERS[config.leader], f"for --leader {config.leader}")
    if not config.replay_rounds:
        refuse_idle(config, usual, frozenset({"replay_kind"}), "without --replay-rounds")
    decided = recipe.settle(config)
    if not (config.gradient_penalty or decided.score_penalty):
        refuse_idle(config, usual, frozenset({"gradient_target"}), "without --gradient-penalty")
    return decided


OF_OTHER_LEADERS = {  # settings that a leader does not look at
    "ppo": frozenset({"buffer_size", "learning_starts", "gradient_steps", "tau"}),
    "sac": frozenset({"n_epochs", "log_std_init", "gae_lambda", "clip_range", "target_kl", "ent_coef"})
    | {"normalize_reward"},
}


def score_config(config: GAILConfig) -> GAILConfig:
    """The settings of the objective by which a learned rule is scored."""
    given = {"gradient_penalty": config.score_penalty, "label_smoothing": config.score_smoothing}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def weights_of(discriminator: nn.Module) -> dict[str, Tensor]:
    """A copy of the named weights, without a graph."""
    return {name: weight.detach().clone() for name, weight in discriminator.named_parameters()}


@torch.no_grad()
def commit(weights: dict[str, Tensor], discriminator: nn.Module) -> None:
    """Write a follower's answer into the live discriminator; Diverged if it is NaN or infinite."""
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise Diverged("the discriminator's weights are NaN or infinite; a smaller --disc-learning-rate may help")
    for name, parameter in discriminator.named_parameters():
        parameter.copy_(weights[name])
