"""Who updates the discriminator: Adam, or a learned rule that starts as Adam.

Both hold the discriminator's weights and the rule's memory for the whole run, and answer one round with
`respond(train, score, progress)`: `train()` and `score()` draw an objective each, the second one on demonstrations held
out from the first and on fresh policy samples.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bilevel import Adam, Coordinatewise, LearnedFollower, unroll
from bilevel.rules import adam_direction
from l2l_experiment.checkpoint import load_optimizer_state, optimizer_state
from l2l_experiment.errors import Diverged, UserError
from l2l_gail.config import GAILConfig
from l2l_gail.discriminator import Discriminator

Draw = Callable[[], Callable[[dict[str, Tensor]], Tensor]]


class AdamFollower:
    """The baseline: `disc_updates` Adam steps a round."""

    def __init__(self, discriminator: Discriminator, config: GAILConfig) -> None:
        self.discriminator, self.updates = discriminator, config.disc_updates
        self.rule = Adam(config.disc_rate)
        self.weights = {name: weight.detach().clone() for name, weight in discriminator.named_parameters()}
        self.memory = self.rule.init(self.weights)

    def respond(self, train: Draw, score: Draw, progress: float) -> dict[str, float]:
        """Answer one round: move the discriminator, return figures for the log."""
        before = self.weights
        for _ in range(self.updates):
            answer = unroll(train(), self.rule, self.weights, steps=1, state=self.memory)
            self.weights, self.memory = answer.variable, answer.state
        commit(self.weights, self.discriminator)
        return {"update_norm": distance(before, self.weights), "rate": self.rule.rate}

    def state(self) -> tuple[dict, dict]:
        """Tensors and JSON values that `restore` takes."""
        return {"weights": self.weights, "memory": self.memory}, {}

    def restore(self, tensors: dict, meta: dict) -> None:
        """Continue from a `state`."""
        self.weights, self.memory = tensors["weights"], tensors["memory"]
        commit(self.weights, self.discriminator)


class L2LFollower:
    """L2L: the discriminator's step is a learned rule, fitted every `follower_steps` steps while it answers.

    The abstract of Jiang et al. (2021) names an extension to imitation in one sentence, and their code has none; this
    follower is our design. It keeps their template: the hand-designed step of the inner problem is replaced by a
    network that is trained jointly on the inner objective.
    """

    def __init__(self, discriminator: Discriminator, config: GAILConfig) -> None:
        self.discriminator, self.config = discriminator, config
        hidden = config.follower_hidden if config.follower == "l2l" else 0
        self.rule = Coordinatewise(config.disc_rate, hidden=hidden, anchored=bool(config.written_out.follower_anchored))
        self.rule.to(next(discriminator.parameters()).device)
        network = [p for name, p in self.rule.named_parameters() if name != "log_rate"]
        groups = [{"params": [self.rule.log_rate], "lr": config.log_rate_rate}]
        if network:
            groups.append({"params": network, "lr": config.follower_rate})
        optimizer = torch.optim.Adam(groups)
        self.learner = LearnedFollower(self.rule, optimizer, steps=config.follower_steps)
        self.weights = {name: weight.detach().clone() for name, weight in discriminator.named_parameters()}
        self.memory = self.rule.init(self.weights)

    def respond(self, train: Draw, score: Draw, progress: float) -> dict[str, float]:
        """Answer one round: move the discriminator, fit the rule, return figures for the log."""
        before = self.weights
        self.memory["progress"] = torch.full_like(self.memory["progress"], progress)
        fits = []
        for _ in range(self.config.disc_updates // self.config.follower_steps):
            objectives = [train() for _ in range(self.config.follower_steps)]
            if self.config.freeze_follower:
                for objective in objectives:
                    answer = unroll(objective, self.rule, self.weights, steps=1, state=self.memory)
                    self.weights, self.memory = answer.variable, answer.state
            else:
                answer, figures = self.learner.fit([*objectives, score()], self.weights, state=self.memory)
                self.weights, self.memory = answer.variable, answer.state
                self.keep_within_limit()
                fits.append(figures)
        commit(self.weights, self.discriminator)
        figures = {key: sum(fit[key] for fit in fits) / len(fits) for key in (fits[0] if fits else ())}
        log_rate = float(self.rule.log_rate.detach())
        rate = self.rule.rate * float(self.rule.log_rate.detach().exp())
        if fits:
            adam = self.adam_step()
            figures["step_over_adam"] = fits[-1]["last_step"] / adam if adam else float("nan")
        return figures | {"update_norm": distance(before, self.weights), "log_rate": log_rate, "rate": rate}

    @torch.no_grad()
    def keep_within_limit(self) -> None:
        """Take the log rate back to where it may be: a rule whose every step makes its score worse stops for good."""
        if self.config.log_rate_limit is not None:
            reach = math.log(self.config.log_rate_limit)
            self.rule.log_rate.clamp_(-reach, reach)

    def adam_step(self) -> float:
        """Length of the step that Adam would have made last, at the rate that the rule started from."""
        rule, memory = self.rule, self.memory
        mean, square = memory["momenta"][str(rule.betas[0])], memory["square"]
        direction = adam_direction(mean, square, float(memory["count"]), rule.betas, rule.eps)
        return rule.rate * float(torch.cat([leaf.flatten() for leaf in direction.values()]).norm())

    def state(self) -> tuple[dict, dict]:
        """Tensors and JSON values that `restore` takes."""
        tensors, meta = optimizer_state(self.learner.optimizer)
        return (
            {"weights": self.weights, "memory": self.memory, "rule": self.rule.state_dict(), "optimizer": tensors},
            {"optimizer": meta, "skipped": self.learner.skipped},
        )

    def restore(self, tensors: dict, meta: dict) -> None:
        """Continue from a `state`."""
        self.weights, self.memory = tensors["weights"], tensors["memory"]
        self.carry(tensors["rule"], "this checkpoint")
        load_optimizer_state(self.learner.optimizer, tensors["optimizer"], meta["optimizer"])
        self.learner.skipped = int(meta["skipped"])
        commit(self.weights, self.discriminator)

    def carry(self, rule: dict[str, Tensor], source: str, *, anchored: bool | None = None) -> None:
        """Take over the weights of a rule learned elsewhere, where it was `anchored` or not (None: as here); memory and
        discriminator stay as they are."""
        if anchored is not None and anchored != self.rule.anchored:
            raise UserError(
                f"the learned follower of {source} saw weights {'from their start' if anchored else 'from zero'}: "
                f"add --follower-anchored {anchored}"
            )
        own = self.rule.state_dict()
        if {name: value.shape for name, value in rule.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(
                f"the learned follower of {source} has another shape than this run's: "
                "use the same --follower and --follower-hidden"
            )
        self.rule.load_state_dict(rule)


def make_follower(discriminator: Discriminator, config: GAILConfig) -> AdamFollower | L2LFollower:
    """The follower that a configuration names."""
    return (AdamFollower if config.follower == "adam" else L2LFollower)(discriminator, config)


@torch.no_grad()
def commit(weights: dict[str, Tensor], discriminator: Discriminator) -> None:
    """Write a follower's answer into the live discriminator; Diverged if it is not finite."""
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise Diverged("the discriminator diverged: its weights are no finite numbers; a smaller --disc-rate may help")
    for name, parameter in discriminator.named_parameters():
        parameter.copy_(weights[name])


def distance(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Euclidean length of a move in weight space."""
    return float(torch.stack([(after[name] - before[name]).square().sum() for name in before]).sum().sqrt())
