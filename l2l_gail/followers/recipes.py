"""The followers by name, and which settings each of them reads.

To add one, write a class with the verbs of `Follower` (subclass `RuleFollower` if an update rule makes its steps) and
give it a row in `FOLLOWERS`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from l2l_experiment.errors import UserError
from l2l_experiment.settings import refuse_idle
from l2l_gail.config import GAILConfig, defaults
from l2l_gail.followers.base import Follower
from l2l_gail.followers.optimizers import of_package
from l2l_gail.followers.pretrained import PretrainedFollower
from l2l_gail.followers.rules import AdamFollower, HypergradientFollower, L2LFollower

RATE = frozenset({"disc_learning_rate"})


@dataclass(frozen=True)
class Recipe:
    """A follower's name in the world, how it is made, and what it takes."""

    summary: str
    source: str
    make: Callable[[nn.Module, GAILConfig], Follower]
    takes: frozenset[str] = RATE  # what it reads of the settings that only some read; others are refused
    settle: Callable[[GAILConfig], GAILConfig] = replace  # decides what is open, refuses misfits; by default a copy


def settle_learned(config: GAILConfig) -> GAILConfig:
    """The settings of a learned rule with the objective of its score and the bounds of its rate decided."""
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
    limit = config.log_rate_limit
    if limit is None and not config.gradient_penalty:
        # Its steps lead where its score gets worse, so that it may lower its rate until it stops for good.
        limit = 100.0
    return replace(config, score_penalty=penalty, score_smoothing=smoothing, log_rate_limit=limit)


def settle_network(config: GAILConfig) -> GAILConfig:
    """The same, and what the rule's network sees of a weight."""
    anchored = not config.gradient_penalty if config.follower_anchored is None else config.follower_anchored
    return replace(settle_learned(config), follower_anchored=anchored)


SCHEDULE = frozenset({"disc_schedule"})
TUNED = RATE | SCHEDULE
LEARNED = RATE | {"follower_steps", "log_rate_learning_rate", "log_rate_limit", "holdout", "freeze_follower"}
LEARNED |= {"score_smoothing", "score_penalty"}
NETWORK = LEARNED | {"follower_hidden", "follower_learning_rate", "follower_anchored"}

# Not those that need a closure (LBFGS), sparse gradients (SparseAdam) or matrices (Muon). Rprop reads its rate once.
OF_TORCH = dict.fromkeys(("SGD", "RMSprop", "Adagrad", "Adamax", "AdamW", "NAdam", "RAdam", "ASGD", "Adafactor"), TUNED)
OF_TORCH |= {"Rprop": RATE}
D_ADAPTATION, SCHEDULE_FREE = ("dadaptation", "DAdaptAdam", 1.0), ("schedulefree", "AdamWScheduleFree", None)

FOLLOWERS: dict[str, Recipe] = {
    "adam": Recipe("Adam", "Kingma and Ba, 2015", AdamFollower, TUNED),
    "l2l": Recipe("learned rule", "ours, after Jiang et al., 2021", L2LFollower, NETWORK, settle_network),
    "l2l-rate": Recipe("Adam with a learned log rate", "ours", L2LFollower, LEARNED, settle_learned),
    "l2l-pretrained": Recipe("learned rule, trained beforehand", "ours", PretrainedFollower, frozenset()),
    "hypergradient": Recipe("Adam-HD", "Baydin et al., 2018", HypergradientFollower, RATE | {"disc_hyper_rate"}),
    "prodigy": Recipe("Prodigy", "Mishchenko and Defazio, 2023", of_package("prodigyopt", "Prodigy", 1.0), SCHEDULE),
    "d-adaptation": Recipe("D-Adapted Adam", "Defazio and Mishchenko, 2023", of_package(*D_ADAPTATION), SCHEDULE),
    "schedule-free": Recipe("Schedule-Free AdamW", "Defazio et al., 2024", of_package(*SCHEDULE_FREE), RATE),
}
FOLLOWERS["adadelta"] = Recipe("Adadelta", "Zeiler, 2012", of_package("torch.optim", "Adadelta", 1.0), SCHEDULE)
FOLLOWERS |= {
    name.lower(): Recipe(name, "torch.optim", of_package("torch.optim", name, None), takes)
    for name, takes in OF_TORCH.items()
}
SHIPPED = frozenset(FOLLOWERS)  # what any program knows


def reads(follower: str, setting: str) -> bool:
    """Whether a follower looks at a setting that not all of them look at; one that is given as an object may."""
    return follower not in FOLLOWERS or setting in FOLLOWERS[follower].takes


def settled(config: GAILConfig) -> GAILConfig:
    """The settings with all decided that their follower leaves open; UserError for those that change nothing."""
    if config.follower not in FOLLOWERS:
        known = f"--follower must be one of {', '.join(FOLLOWERS)}, got {config.follower!r}"
        raise UserError(f"{known}; a follower of one's own is given as an object: GAIL(..., follower=...)")
    recipe, usual = FOLLOWERS[config.follower], defaults(config)
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
