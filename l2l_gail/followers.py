"""Who updates the discriminator: the follower's protocol, Adam, and a learned rule that starts as Adam.

To add a follower, write a class with the verbs of `Follower` (subclass `RuleFollower` if an update rule makes its
steps) and give it a row in `FOLLOWERS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bilevel import Adam, Coordinatewise, LearnedFollower, UpdateRule, unroll
from bilevel.response import Objective
from bilevel.rules import adam_direction
from bilevel.tree import map_tensors
from l2l_experiment.errors import Diverged, UserError
from l2l_experiment.settings import refuse_idle
from l2l_gail.config import GAILConfig, tuned


class Objectives(NamedTuple):
    """What a follower works on in a round: functions that draw an objective of the discriminator's named weights."""

    train: Callable[[], Objective]
    """For a step."""
    score: Callable[[], Objective]
    """For judging steps, on demonstrations and policy transitions that `train` does not draw from."""


class Follower(Protocol):
    """Moves the discriminator once a round."""

    holdout: float
    """Share of every demonstration and rollout that it wants held out from `Objectives.train`, in [0, 1)."""
    skipped: int
    """Fits of something learned that were skipped because their score was NaN or infinite."""

    def answer(self, objectives: Objectives, progress: float) -> dict[str, float]:
        """Move the discriminator; returns figures for the log. `progress` is the share of training done."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as a tree; the discriminator's weights are saved with the discriminator."""

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Continue from a `state_dict`; the discriminator has its weights already."""


class RuleFollower:
    """`disc_updates` steps of an update rule a round, with the rule's memory kept over rounds."""

    holdout = 0.0
    skipped = 0

    def __init__(self, discriminator: nn.Module, config: GAILConfig, rule: UpdateRule) -> None:
        self.discriminator, self.config, self.rule = discriminator, config, rule
        self.weights = weights_of(discriminator)
        self.memory = rule.init(self.weights)

    def answer(self, objectives: Objectives, progress: float) -> dict[str, float]:
        before = self.weights
        figures = self.move(objectives, progress)
        commit(self.weights, self.discriminator)
        return figures | {"update_norm": distance(before, self.weights)}

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
        to = lambda t: t.to(device) if t.is_floating_point() and t.dim() else t  # noqa: E731
        self.memory = map_tensors(to, tree["memory"])


class AdamFollower(RuleFollower):
    """The baseline: Adam (Kingma and Ba, 2015)."""

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        super().__init__(discriminator, config, Adam(config.disc_learning_rate))

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        return super().move(objectives, progress) | {"rate": self.rule.rate}


class L2LFollower(RuleFollower):
    """L2L: the discriminator's step is a learned rule, fitted every `follower_steps` steps while it answers.

    The abstract of Jiang et al. (2021) names an extension to imitation in one sentence, and their code has none; this
    follower is our design. It keeps their template: the hand-designed step of the inner problem is replaced by a
    network that is trained jointly on the inner objective.
    """

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        hidden = config.follower_hidden if config.follower != "l2l-rate" else 0
        rule = Coordinatewise(config.disc_learning_rate, hidden=hidden, anchored=bool(config.follower_anchored))
        rule.to(next(discriminator.parameters()).device)
        super().__init__(discriminator, config, rule)
        self.holdout = config.holdout
        network = [p for name, p in rule.named_parameters() if name != "log_rate"]
        groups = [{"params": [rule.log_rate], "lr": config.log_rate_learning_rate}]
        groups += [{"params": network, "lr": config.follower_learning_rate}] if network else []
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
                self.limit()
                fits.append(figures)
        figures = {key: sum(fit[key] for fit in fits) / len(fits) for key in (fits[0] if fits else ())}
        if fits:
            adam = self.adam_step()
            figures["step_over_adam"] = fits[-1]["last_step"] / adam if adam else float("nan")
        log_rate = self.rule.log_rate.detach()
        return figures | {"log_rate": float(log_rate), "rate": self.rule.rate * float(log_rate.exp())}

    @torch.no_grad()
    def limit(self) -> None:
        """Keep the log rate within `log_rate_limit`: a rule whose every step makes its score worse stops for good."""
        if self.config.log_rate_limit is not None:
            reach = math.log(self.config.log_rate_limit)
            self.rule.log_rate.clamp_(-reach, reach)

    def adam_step(self) -> float:
        """Length of the step that Adam would have made last, at the rate that the rule started from."""
        rule, memory = self.rule, self.memory
        mean, square = memory["momenta"][str(rule.betas[0])], memory["square"]
        direction = adam_direction(mean, square, float(memory["count"]), rule.betas, rule.eps)
        return rule.rate * float(torch.cat([leaf.flatten() for leaf in direction.values()]).norm())

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
    takes: frozenset[str] = frozenset()
    """What it looks at of the settings that only some followers look at; any other of those is refused."""
    settle: Callable[[GAILConfig], GAILConfig] = lambda config: config
    """Decides the settings that were left open, and refuses those that do not fit each other."""


def settle_learned(config: GAILConfig) -> GAILConfig:
    """The settings of a learned rule with the objective of its score decided."""
    steps, updates = config.follower_steps, config.disc_updates
    if updates % steps:
        raise UserError(f"--follower-steps {steps} must divide --disc-updates, which is {updates}")
    transitions = config.n_envs * config.n_steps
    if config.holdout and not 0 < round(config.holdout * transitions) < transitions:
        raise UserError(f"--holdout {config.holdout} of a round's {transitions} transitions leaves one side empty")
    smoothing = config.label_smoothing if config.score_smoothing is None else config.score_smoothing
    penalty = config.score_penalty
    if penalty is None:
        # Without either, the best score is a discriminator that has won, whose reward is flat.
        penalty = config.gradient_penalty or (0.0 if smoothing else 1.0)
    return replace(config, score_penalty=penalty, score_smoothing=smoothing)


def settle_network(config: GAILConfig) -> GAILConfig:
    """The same, and what the rule's network sees of a weight."""
    anchored = not config.gradient_penalty if config.follower_anchored is None else config.follower_anchored
    return replace(settle_learned(config), follower_anchored=anchored)


LEARNED = frozenset({"follower_steps", "log_rate_learning_rate", "log_rate_limit", "holdout", "score_smoothing"})
LEARNED |= {"score_penalty", "freeze_follower"}
NETWORK = LEARNED | {"follower_hidden", "follower_learning_rate", "follower_anchored"}

FOLLOWERS: dict[str, Recipe] = {
    "adam": Recipe("Adam", "Kingma and Ba, 2015", AdamFollower),
    "l2l": Recipe("learned rule", "ours, after Jiang et al., 2021", L2LFollower, NETWORK, settle_network),
    "l2l-rate": Recipe("Adam with a learned log rate", "ours", L2LFollower, LEARNED, settle_learned),
}


def settled(config: GAILConfig) -> GAILConfig:
    """The settings with everything decided that their follower leaves open; UserError for an unknown follower, and for
    settings that it does not look at."""
    if config.follower not in FOLLOWERS:
        raise UserError(f"--follower must be one of {', '.join(FOLLOWERS)}, got {config.follower!r}")
    recipe, usual = FOLLOWERS[config.follower], (GAILConfig(), tuned(config.env))
    particular = frozenset().union(*(recipe.takes for recipe in FOLLOWERS.values()))
    refuse_idle(config, usual, particular - recipe.takes, f"for --follower {config.follower}")
    penalised = config.gradient_penalty or (recipe.takes and recipe.settle(config).score_penalty)
    if not penalised:
        refuse_idle(config, usual, frozenset({"gradient_target"}), "without --gradient-penalty")
    return recipe.settle(config)


def score_config(config: GAILConfig) -> GAILConfig:
    """The settings of the objective by which a learned rule is scored."""
    penalty, smoothing = config.score_penalty, config.score_smoothing
    return replace(
        config,
        gradient_penalty=config.gradient_penalty if penalty is None else penalty,
        label_smoothing=config.label_smoothing if smoothing is None else smoothing,
    )


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


def distance(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Euclidean length of a move in weight space."""
    return float(torch.stack([(after[name] - before[name]).square().sum() for name in before]).sum().sqrt())
