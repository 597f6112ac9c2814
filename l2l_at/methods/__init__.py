"""The methods by name: for each, a follower and a leader's loss. This page is the whole zoo."""

from collections.abc import Callable
from dataclasses import dataclass

from l2l_at.config import ATConfig, tuned
from l2l_at.methods import leaders
from l2l_at.methods.base import Answer, Follower, Leader, Method
from l2l_at.methods.fast_bat import FastBAT
from l2l_at.methods.grad_align import GradAlign
from l2l_at.methods.published import Published
from l2l_at.methods.residual import Residual
from l2l_at.methods.steepest import Free, Noisy, Nothing, Steepest
from l2l_experiment.errors import UserError
from l2l_experiment.settings import refuse_idle

__all__ = ["METHODS", "Answer", "Follower", "Leader", "Method", "Recipe", "make"]


@dataclass(frozen=True)
class Recipe:
    """A method's name in the world, and how it is put together for a configuration and a number of channels."""

    summary: str
    source: str
    make: Callable[[ATConfig, int], Method]
    takes: frozenset[str] = frozenset()
    """What it looks at of the settings that only some methods look at; any other of those is refused."""
    linf_only: bool = False
    """Whether it knows no other norm."""

    def __str__(self) -> str:
        return f"{self.summary} ({self.source})"


def _ce(c: ATConfig) -> Leader:
    return leaders.cross_entropy(_given(c.label_smoothing, 0.0), c.clean_share)


def _trades(c: ATConfig) -> Leader:
    return leaders.trades(_given(c.regularisation, 6.0))


def _mart(c: ATConfig) -> Leader:
    return leaders.mart(_given(c.regularisation, 5.0))


def _arow(c: ATConfig, weight: str) -> Leader:
    return leaders.arow(_given(c.regularisation, 7.0), _given(c.label_smoothing, 0.2), weight)


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _grad_align(c: ATConfig) -> Method:
    player = GradAlign(c)
    return Method(player, player.leader, differentiates=True)


# What methods look at, by what they are made of.
CROSS_ENTROPY = frozenset({"label_smoothing", "clean_share"})
ATTACK = frozenset({"attack_steps", "attack_step_size", "attack_start", "inner"})
REGULARISED = frozenset({"regularisation"})
LEARNED = frozenset({"attack_steps", "attack_step_size", "gradient_scale", "freeze_attacker"})
LEARNED |= {"attacker_width", "attacker_learning_rate", "attacker_decay"}
PUBLISHED = LEARNED | {"attacker"}
IMAGE_ONLY = PUBLISHED - {"gradient_scale"}
LEARNED_START = LEARNED | ATTACK | {"attacker_every", "attacker_sees"}
RESIDUAL = LEARNED_START | {"attacker_scale_learning_rate"}

OURS = "ours, after Jiang et al., 2021"
JIANG = "Jiang et al., 2021"

METHODS: dict[str, Recipe] = {
    "standard": Recipe(
        "clean images, no defence",
        "the lower end of every table",
        lambda c, _: Method(Nothing(c), leaders.clean, defends=False),
    ),
    "fgsm-rs": Recipe(
        "one step of 1.25 ε from a random start",
        "Wong et al., 2020",
        lambda c, _: Method(Steepest(c, steps=1, size=1.25), _ce(c)),
        ATTACK | CROSS_ENTROPY,
    ),
    "pgd": Recipe(
        "PGD-10, steps of ε/4 from a random start",
        "Madry et al., 2018",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25), _ce(c)),
        ATTACK | CROSS_ENTROPY,
    ),
    "pgd-2": Recipe(
        "PGD-2, steps of ε/2 from a random start",
        "as FAST-BAT's authors compare",
        lambda c, _: Method(Steepest(c, steps=2, size=0.5), _ce(c)),
        ATTACK | CROSS_ENTROPY,
    ),
    "l2l": Recipe(
        "learned residual attacker: two soft sign steps plus a learned correction, from the image's last perturbation",
        OURS,
        lambda c, channels: Method(Residual(c, channels), _ce(c)),
        RESIDUAL | CROSS_ENTROPY,
    ),
    "l2l-naive": Recipe(
        "learned attacker that sees the image only",
        JIANG,
        lambda c, channels: Method(Published(c, channels, sees_gradient=False), _ce(c)),
        IMAGE_ONLY | CROSS_ENTROPY,
        linf_only=True,
    ),
    "l2l-grad": Recipe(
        "learned attacker that sees image and gradient, one step",
        JIANG,
        lambda c, channels: Method(Published(c, channels), _ce(c)),
        PUBLISHED | CROSS_ENTROPY,
        linf_only=True,
    ),
    "l2l-2step": Recipe(
        "the same, two steps, trained through both",
        JIANG,
        lambda c, channels: Method(Published(c, channels, steps=2), _ce(c)),
        PUBLISHED | CROSS_ENTROPY,
        linf_only=True,
    ),
    "l2l-kstep": Recipe(
        "the same, ten small steps, inputs detached",
        JIANG,
        # 0.007 for a radius of 0.031, as in the published code
        lambda c, channels: Method(Published(c, channels, steps=10, size=0.007 / 0.031, detach_inputs=True), _ce(c)),
        PUBLISHED | CROSS_ENTROPY,
        linf_only=True,
    ),
    "l2l-trades": Recipe(
        "the residual attacker under TRADES' loss",
        f"{OURS}, and Zhang et al., 2019",
        lambda c, channels: Method(Residual(c, channels, inner="kl"), _trades(c)),
        RESIDUAL | REGULARISED,
    ),
    "l2l-sdi": Recipe(
        "learned start of one signed step, refreshed every 20 batches",
        "in the style of FGSM-SDI, Jia et al., 2022",
        lambda c, channels: Method(
            Residual(c, channels, steps=1, size=1.0, start="zero", every=20, sign_step=1.0, soft_sign=False), _ce(c)
        ),
        LEARNED_START | CROSS_ENTROPY,
    ),
    "fast-bat": Recipe(
        "one gradient step with its derivative in the classifier's weights",
        "Zhang et al., 2022",
        lambda c, _: Method(FastBAT(c), _ce(c), differentiates=True),
        CROSS_ENTROPY | {"bat_step_size", "bat_lambda"},
        linf_only=True,
    ),
    "trades": Recipe(
        "clean CE plus β KL, attacked by KL",
        "Zhang et al., 2019",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25, start="noise", inner="kl"), _trades(c)),
        ATTACK | REGULARISED,
    ),
    "mart": Recipe(
        "margin CE plus β KL weighted by clean doubt",
        "Wang et al., 2020",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25, start="noise"), _mart(c)),
        ATTACK | REGULARISED,
    ),
    "arow": Recipe(
        "smoothed clean CE plus λ KL weighted by doubt under attack",
        "Yang et al., 2023",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25, inner="kl"), _arow(c, "attacked")),
        ATTACK | REGULARISED | {"label_smoothing"},
    ),
    "cow": Recipe(
        "ARoW's variant with the clean confidence as weight",
        "Yang et al., 2023",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25, inner="kl"), _arow(c, "clean")),
        ATTACK | REGULARISED | {"label_smoothing"},
    ),
    "ro": Recipe(
        "robust optimisation: one steepest step in the ball, perturbed batch only",
        "Shaham et al., 2015",
        lambda c, _: Method(Steepest(c, steps=1, size=1.0, start="zero", training=True), _ce(c)),
        ATTACK | CROSS_ENTROPY,
    ),
    "free": Recipe(
        "each batch eight times, the perturbation steps along",
        "Shafahi et al., 2019",
        lambda c, _: Method(Free(c), _ce(c), replays=c.replays or 8),
        CROSS_ENTROPY | {"attack_step_size", "replays"},
    ),
    "n-fgsm": Recipe(
        "noise of 2 ε, one step, no cut to the ball",
        "de Jorge et al., 2022",
        lambda c, _: Method(Noisy(c, noise=2.0), _ce(c)),
        CROSS_ENTROPY | {"attack_step_size", "noise"},
        linf_only=True,
    ),
    "grad-align": Recipe(
        "one step, and a penalty on gradients that turn inside the ball",
        "Andriushchenko et al., 2020",
        lambda c, _: _grad_align(c),
        REGULARISED,
        linf_only=True,
    ),
}


def make(config: ATConfig, channels: int) -> Method:
    """The method that a configuration names, for images with so many channels.

    UserError for an unknown name, a norm that the method does not know, and settings that would change nothing.
    """
    if config.method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {config.method!r}")
    recipe, usual = METHODS[config.method], (ATConfig(), tuned(config.dataset))
    if recipe.linf_only and config.norm != "linf":
        raise UserError(f"--method {config.method} knows linf only, not {config.norm}; l2l and pgd know all norms")
    particular = frozenset().union(*(recipe.takes for recipe in METHODS.values()))
    refuse_idle(config, usual, particular - recipe.takes, f"with --method {config.method}")
    learning = {"attacker_learning_rate", "attacker_decay", "attacker_scale_learning_rate", "attacker_every"}
    unused = "attacker" in recipe.takes and config.attacker != "tiny"
    for names, off, reason in (
        (learning, config.freeze_attacker, "beside --freeze-attacker"),
        ({"attacker_width"}, unused, f"for --attacker {config.attacker}"),
        ({"awp_from"}, not config.awp, "without --awp"),
        ({"swa_from"}, config.average != "swa", "without --average swa"),
        ({"ema"}, config.average != "ema", "without --average ema"),
    ):
        if off:
            refuse_idle(config, usual, frozenset(names), reason)
    return recipe.make(config, channels)
