"""The followers by name, and which settings each of them reads.

To add one, write a class with the verbs of `Follower` (subclass `RuleFollower` if an update rule makes its steps) and
give it a row in `FOLLOWERS`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from l2l_experiment.errors import UserError
from l2l_experiment.settings import reject_unused
from l2l_gail.config import GAILConfig, defaults
from l2l_gail.followers.base import Follower
from l2l_gail.followers.optimizers import optimizer_follower
from l2l_gail.followers.pretrained import PretrainedFollower
from l2l_gail.followers.rules import AdamFollower, HypergradientFollower, L2LFollower

RATE = frozenset({"disc_learning_rate"})


@dataclass(frozen=True)
class Recipe:
    """A row of `FOLLOWERS`: display name, reference, factory, and the settings that the follower reads."""

    summary: str
    source: str
    make: Callable[[nn.Module, GAILConfig], Follower]
    takes: frozenset[str] = RATE  # follower-specific settings that it reads; others are refused
    resolve: Callable[[GAILConfig], GAILConfig] = replace  # fills in dependent defaults and validates; here: a copy


def resolve_learned(config: GAILConfig) -> GAILConfig:
    """The settings with the score objective and rate limit of a learned rule filled in; UserError if they clash."""
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
        # Unpenalised steps can worsen the penalised score, so the rule may shrink its rate until it stops for good.
        limit = 100.0
    return replace(config, score_penalty=penalty, score_smoothing=smoothing, log_rate_limit=limit)


def resolve_network(config: GAILConfig) -> GAILConfig:
    """`resolve_learned`, and whether the rule's network sees weights relative to their start."""
    anchored = not config.gradient_penalty if config.follower_anchored is None else config.follower_anchored
    return replace(resolve_learned(config), follower_anchored=anchored)


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
    "l2l": Recipe("learned rule", "ours, after Jiang et al., 2021", L2LFollower, NETWORK, resolve_network),
    "l2l-rate": Recipe("Adam with a learned log rate", "ours", L2LFollower, LEARNED, resolve_learned),
    "l2l-pretrained": Recipe("learned rule, trained beforehand", "ours", PretrainedFollower, frozenset()),
    "hypergradient": Recipe("Adam-HD", "Baydin et al., 2018", HypergradientFollower, RATE | {"disc_hyper_rate"}),
    "prodigy": Recipe(
        "Prodigy", "Mishchenko and Defazio, 2023", optimizer_follower("prodigyopt", "Prodigy", 1.0), SCHEDULE
    ),
    "d-adaptation": Recipe(
        "D-Adapted Adam", "Defazio and Mishchenko, 2023", optimizer_follower(*D_ADAPTATION), SCHEDULE
    ),
    "schedule-free": Recipe("Schedule-Free AdamW", "Defazio et al., 2024", optimizer_follower(*SCHEDULE_FREE), RATE),
}
FOLLOWERS["adadelta"] = Recipe("Adadelta", "Zeiler, 2012", optimizer_follower("torch.optim", "Adadelta", 1.0), SCHEDULE)
FOLLOWERS |= {
    name.lower(): Recipe(name, "torch.optim", optimizer_follower("torch.optim", name, None), takes)
    for name, takes in OF_TORCH.items()
}
SHIPPED = frozenset(FOLLOWERS)  # what any program knows


def uses_setting(follower: str, setting: str) -> bool:
    """Whether a follower reads a follower-specific setting; a follower given as an object is assumed to."""
    return follower not in FOLLOWERS or setting in FOLLOWERS[follower].takes


def resolve_config(config: GAILConfig) -> GAILConfig:
    """The settings with the follower's open defaults filled in; UserError for settings without effect."""
    if config.follower not in FOLLOWERS:
        known = f"--follower must be one of {', '.join(FOLLOWERS)}, got {config.follower!r}"
        raise UserError(f"{known}; a follower of one's own is given as an object: GAIL(..., follower=...)")
    if wrong := [name for name, recipe in FOLLOWERS.items() if not isinstance(recipe, Recipe)]:
        raise UserError(f"FOLLOWERS[{wrong[0]!r}] must be a Recipe: Recipe('what it is', 'source', YourFollower)")
    recipe, usual = FOLLOWERS[config.follower], defaults(config)
    particular = frozenset().union(*(recipe.takes for recipe in FOLLOWERS.values()))
    reject_unused(config, usual, particular - recipe.takes, f"for --follower {config.follower}")
    reject_unused(config, usual, OF_OTHER_LEADERS[config.leader], f"for --leader {config.leader}")
    if not config.replay_rounds:
        reject_unused(config, usual, frozenset({"replay_kind"}), "without --replay-rounds")
    decided = recipe.resolve(config)
    if not (config.gradient_penalty or decided.score_penalty):
        reject_unused(config, usual, frozenset({"gradient_target"}), "without --gradient-penalty")
    return decided


OF_OTHER_LEADERS = {  # settings that a leader does not look at
    "ppo": frozenset({"buffer_size", "learning_starts", "gradient_steps", "tau", "critic_layer_norm"}),
    "sac": frozenset({"n_epochs", "log_std_init", "gae_lambda", "clip_range", "target_kl", "ent_coef"})
    | {"normalize_reward"},
}


def score_config(config: GAILConfig) -> GAILConfig:
    """The settings of the objective by which a learned rule is scored."""
    given = {"gradient_penalty": config.score_penalty, "label_smoothing": config.score_smoothing}
    return replace(config, **{name: value for name, value in given.items() if value is not None})
