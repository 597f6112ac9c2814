"""Rules that were trained before they are used: their files, and the follower that steps by one as it is."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bilevel import Coordinatewise, UpdateRule
from l2l_experiment import checkpoint
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping, write_atomically
from l2l_experiment.run import CONFIG
from l2l_gail.config import GAILConfig
from l2l_gail.followers.base import Objectives
from l2l_gail.followers.rules import RuleFollower

RULE = "rule.safetensors"  # in a folder of l2l-train-follower
KEY = "rule"  # of what a rule's file says of it
DAMAGED = (KeyError, TypeError, ValueError, RuntimeError, AttributeError)
SHIPPED_RULE = Path(__file__).with_name("pretrained.safetensors")


def save_rule(file: Path, rule: Coordinatewise, about: dict[str, Any]) -> None:
    """Write a rule with its rate, and what is to be known `about` it, into one file of a few kB."""
    own = {"rate": rule.rate, "anchored": rule.anchored, "about": about}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in rule.state_dict().items()}
    write_atomically(file, safetensors.torch.save(weights, {KEY: json.dumps(own)}))


def load_rule(file: Path) -> tuple[Coordinatewise, dict[str, Any]]:
    """The rule of a file, and what is known about it. UserError if the file holds none."""
    try:
        with safe_open(file, framework="pt") as opened:
            own = json.loads((opened.metadata() or {})[KEY])
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return _make_rule(own["rate"], own["anchored"], weights), own["about"]
    except (OSError, SafetensorError, *DAMAGED):
        raise UserError(f"{file} holds no rule of l2l-train-follower, or it is damaged") from None


def rule_of(source: Path) -> Coordinatewise:
    """The rule of a file, of a folder of l2l-train-follower, or of a run with a learned follower, with the rate that it
    started from. UserError if there is none."""
    if not source.exists():
        raise UserError(f"--follower-from {source}: there is no such file or folder")
    if source.is_file() or (source / RULE).is_file():
        return load_rule(source if source.is_file() else source / RULE)[0]
    try:
        tree = checkpoint.latest(source)["follower"]
        if "rule" in tree:
            return _rule_from_state(tree["rule"])
        rate = read_mapping(source / CONFIG)["settings"]["disc_learning_rate"]
        return _make_rule(rate, tree["anchored"], tree["learner"]["rule"])
    except DAMAGED:
        made = "a run with --l2l, or what l2l-train-follower made"
        raise UserError(f"{source} has no learned follower; name {made}") from None


def _make_rule(rate: float, anchored: bool, weights: Mapping[str, Tensor]) -> Coordinatewise:
    """A new rule with these weights, and their width. ValueError unless the rate is positive and finite."""
    if not 0 < rate < math.inf:
        raise ValueError(f"the rate of a rule must be above 0 and finite, got {rate}")
    hidden = len(weights["network.0.bias"]) if "network.0.bias" in weights else 0
    rule = Coordinatewise(rate, hidden=hidden, anchored=anchored)
    rule.load_state_dict(weights)
    return rule


def _rule_from_state(own: Mapping[str, Any]) -> Coordinatewise:
    """The rule from the entry `rule` of a `PretrainedFollower.state_dict`."""
    weights = {name: torch.tensor(values) for name, values in own["weights"].items()}
    return _make_rule(own["rate"], own["anchored"], weights)


class PretrainedFollower(RuleFollower):
    """Steps by a rule that was trained beforehand and stays as it is: the one that ships, or one that is carried over.
    Its rate belongs to the rule. Nothing is fitted, so nothing is held out and a step costs little more than Adam's."""

    def __init__(self, discriminator: nn.Module, config: GAILConfig) -> None:
        super().__init__(discriminator, config, load_rule(SHIPPED_RULE)[0])
        self._set_rule(self.rule)

    def _set_rule(self, rule: Coordinatewise) -> None:
        self.rule = rule.to(next(self.discriminator.parameters()).device).requires_grad_(False)
        self.memory = self.rule.init(self.weights)

    def move(self, objectives: Objectives, progress: float) -> dict[str, float]:
        self.memory["progress"] = torch.full_like(self.memory["progress"], progress)
        super().move(objectives, progress)
        return {"rate": self.rule.rate * float(self.rule.log_rate.exp())}

    def rules(self) -> dict[str, UpdateRule]:
        return {"Adam": Coordinatewise(self.rule.rate, hidden=0), "learned rule": self.rule}

    def state_dict(self) -> dict[str, Any]:
        # Lists, because loading compares tensor shapes and this rule may have another width than the shipped one.
        weights = {name: weight.tolist() for name, weight in self.rule.state_dict().items()}
        own = {"rate": self.rule.rate, "anchored": self.rule.anchored, "weights": weights}
        return super().state_dict() | {"rule": own}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        self._set_rule(_rule_from_state(tree["rule"]))
        super().load_state_dict(tree)

    def warm_start(self, rule: Coordinatewise, source: str) -> None:
        """Take another rule, with its rate, in place of the one that ships."""
        self._set_rule(rule)
