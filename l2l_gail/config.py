"""The settings of GAIL, one flat frozen dataclass; `tuned.yml` holds the values per environment."""

from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Literal

import yaml

from l2l_experiment.errors import UserError
from l2l_experiment.flags import require_finite

FollowerName = Literal["adam", "l2l", "l2l-rate"]
RewardName = Literal["gail", "airl", "fairl", "logd", "constant"]


@dataclass(frozen=True)
class GAILConfig:
    """Settings of one GAIL run: leader, reward, discriminator and follower."""

    env: str = "HalfCheetah-v4"
    """Gymnasium environment with continuous observations and actions."""
    follower: FollowerName = "adam"
    """Who updates the discriminator: adam, l2l (learned rule), or l2l-rate (only its log rate is learned)."""
    seed: int = 0
    """Seed of the networks, the environments and every draw."""
    device: str = "auto"
    """Where networks live: auto, cpu or cuda. PPO with small networks is fastest on the CPU."""

    filter: Literal["demonstrations", "running"] = "demonstrations"
    """Standardise the policy's observations by the demonstrations' moments, or by those of all it has seen so far."""
    num_envs: int = 8
    """Environments stepped side by side in one process."""
    round_steps: int = 256
    """Steps of each environment between two updates (a round)."""
    policy_rate: float = 3e-4
    """PPO's learning rate at the start; it falls linearly to zero."""
    policy_batch: int = 256
    """PPO's minibatch."""
    policy_epochs: int = 10
    """PPO's passes over a round."""
    policy_hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of policy and value function (tanh)."""
    log_std_init: float = -1.5
    """Logarithm of the policy's standard deviation at the start."""
    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_range: float = 0.2
    """PPO's clipping range."""
    policy_kl: float = 0.0
    """Leave a round's remaining passes out once the policy's KL divergence exceeds 1.5 times this; 0 never does."""
    policy_entropy: float = 0.0
    """Weight of PPO's entropy bonus."""
    bc_epochs: int = 0
    """Passes of behaviour cloning over the demonstrations before GAIL starts."""

    reward: RewardName = "gail"
    """gail: -log(1-D); airl: logit of D; fairl: -h*exp(h) of that logit h; logd: log D; constant: 1, a control."""
    normalize_reward: bool = True
    """Divide the learned reward by the running standard deviation of its discounted return (it is never centred)."""

    disc_hidden: tuple[int, ...] = (128, 128)
    """Hidden layers of the discriminator (tanh)."""
    disc_rate: float = 3e-4
    """The discriminator's learning rate; for a learned follower, the rate it starts from."""
    disc_updates: int = 10
    """Discriminator steps a round."""
    disc_batch: int = 512
    """Transitions of each kind (expert, policy) in a discriminator step."""
    gradient_penalty: float = 1.0
    """Weight of the gradient penalty on interpolates of expert and policy transitions; 0 switches it off."""
    gradient_target: float = 1.0
    """Gradient norm at which the penalty is zero."""
    spectral_norm: bool = False
    """Divide each weight matrix of the discriminator by its largest singular value."""
    entropy_bonus: float = 0.0
    """Weight of an entropy bonus on the discriminator's output."""
    mixup: bool = False
    """Train on random mixtures of expert and policy transitions with mixed labels."""
    label_smoothing: float = 0.0
    """Labels are this far from 0 and 1."""
    replay_rounds: int = 0
    """Earlier rounds whose policy transitions the discriminator still sees."""

    follower_steps: int = 5
    """Discriminator steps between two fits of the learned rule (K); must divide disc_updates."""
    follower_hidden: int = 16
    """Width of the learned rule's network per weight."""
    follower_anchored: bool | None = None
    """Show the learned rule how far a weight is from where it started, in place of how far from zero; if None, where
    the discriminator has no penalty."""
    follower_rate: float = 1e-3
    """Learning rate of the learned rule's network."""
    log_rate_rate: float = 0.05
    """Learning rate of the learned rule's log rate."""
    log_rate_limit: float | None = None
    """How many times larger or smaller than --disc-rate the learned rule's rate may become; if None, any number."""
    holdout: float = 0.25
    """Share of every demonstration and rollout, its end, on which the learned rule is scored and never trained; with 0
    it is scored on what its steps have seen."""
    score_smoothing: float | None = None
    """Label smoothing in the rule's score; if None, that of its steps."""
    score_penalty: float | None = None
    """Weight of the gradient penalty in the rule's score; if None, that of its steps, or 1 if the score has neither
    penalty nor smoothed labels."""
    freeze_follower: bool = False
    """Keep the learned rule as it is."""

    @property
    def scoring(self) -> "GAILConfig":
        """The settings of the objective that the learned rule is scored on."""
        smoothing = self.label_smoothing if self.score_smoothing is None else self.score_smoothing
        penalty = self.score_penalty
        if penalty is None:
            # Without either, the best score is a discriminator that has won, whose reward is flat.
            penalty = self.gradient_penalty or (0.0 if smoothing else 1.0)
        return replace(self, gradient_penalty=penalty, label_smoothing=smoothing)

    @property
    def written_out(self) -> "GAILConfig":
        """The same with everything that a learned rule leaves open decided, for config.yaml: defaults may change."""
        if self.follower == "adam":
            return self
        scoring = self.scoring
        anchored = not self.gradient_penalty if self.follower_anchored is None else self.follower_anchored
        return replace(
            self,
            score_penalty=scoring.gradient_penalty,
            score_smoothing=scoring.label_smoothing,
            follower_anchored=anchored and self.follower == "l2l",
        )

    def __post_init__(self) -> None:
        require_finite(self)
        positive = ("num_envs", "round_steps", "policy_batch", "policy_epochs", "disc_batch", "disc_updates")
        for name in (*positive, "follower_steps", "policy_rate", "disc_rate", "clip_range"):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        penalties = ("gradient_penalty", "gradient_target", "score_penalty", "entropy_bonus", "policy_entropy")
        rates = ("follower_rate", "log_rate_rate", "follower_hidden")
        for name in (*penalties, *rates, "policy_kl", "replay_rounds", "bc_epochs"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        limits = {"holdout": 1, "label_smoothing": 0.5, "score_smoothing": 0.5, "gamma": 1, "gae_lambda": 1}
        for name, limit in (limits | {"seed": 2**31 - 1}).items():
            if not 0 <= (getattr(self, name) or 0) <= limit:
                raise UserError(f"--{name.replace('_', '-')} must lie in [0, {limit:g}], got {getattr(self, name)}")
        if self.log_rate_limit is not None and self.log_rate_limit < 1:
            raise UserError(f"--log-rate-limit is a factor of at least 1, got {self.log_rate_limit}")
        if self.follower != "adam" and self.holdout == 1:
            raise UserError("--holdout 1 leaves a learned follower nothing to train on; it must be below 1")
        if self.follower != "adam" and self.disc_updates % self.follower_steps:
            raise UserError(
                f"--follower-steps {self.follower_steps} must divide --disc-updates, which is {self.disc_updates}"
            )
        if not (self.disc_hidden and self.policy_hidden) or min(*self.disc_hidden, *self.policy_hidden) < 1:
            raise UserError("--disc-hidden and --policy-hidden need at least one layer each, of at least one unit")
        transitions = self.num_envs * self.round_steps
        if self.policy_batch < 2 or transitions < 2:
            raise UserError("PPO standardises advantages: --policy-batch and a round need at least 2 transitions")
        if not -20 <= self.log_std_init <= 5:
            raise UserError(f"--log-std-init must lie in [-20, 5], got {self.log_std_init}")
        if self.follower != "adam" and self.holdout and not 0 < round(self.holdout * transitions) < transitions:
            raise UserError(f"--holdout {self.holdout} of a round's {transitions} transitions leaves one side empty")


def tuned(env: str) -> GAILConfig:
    """The settings of `tuned.yml` for an environment: its block over the block `default`."""
    blocks = yaml.safe_load(resources.files("l2l_gail").joinpath("tuned.yml").read_text())
    return from_dict({**(blocks.get("default") or {}), **(blocks.get(env) or {}), "env": env})


def from_dict(values: dict[str, Any]) -> GAILConfig:
    """A configuration from plain values, as stored in a run's config.yaml; an unknown name is a UserError."""
    known = {field.name: field for field in fields(GAILConfig)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"unknown settings {', '.join(unknown)}; known are the fields of GAILConfig")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return replace(GAILConfig(), **lists)


def from_run(values: dict[str, Any]) -> GAILConfig:
    """The configuration of a run from its config.yaml. Older runs left open what their learned rule saw and was scored
    on: weights from zero, and the objective of its steps, with labels smoothed by 0.2 if that had no penalty (runs that
    do not know the setting: without)."""
    config = from_dict(values)
    decided = (config.score_penalty, config.score_smoothing, config.follower_anchored)
    if config.follower == "adam" or None not in decided:
        return config
    penalty = config.gradient_penalty if config.score_penalty is None else config.score_penalty
    smoothing = config.score_smoothing
    if smoothing is None:
        smoothing = config.label_smoothing or (0.0 if penalty or "score_smoothing" not in values else 0.2)
    anchored = bool(config.follower_anchored)
    return replace(config, score_penalty=penalty, score_smoothing=smoothing, follower_anchored=anchored)
