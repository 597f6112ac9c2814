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

__all__ = ["METHODS", "Answer", "Follower", "Leader", "Method", "Recipe", "make"]


@dataclass(frozen=True)
class Recipe:
    """A method's name in the world, and how it is put together for a configuration and a number of channels."""

    summary: str
    source: str
    make: Callable[[ATConfig, int], Method]
    takes: frozenset[str] = frozenset()
    """What it looks at of the settings that only some methods look at; any other of those is refused."""

    def __str__(self) -> str:
        return f"{self.summary} ({self.source})"


def _ce(c: ATConfig) -> Leader:
    return leaders.cross_entropy(_or(c.label_smoothing, 0.0), c.clean_share)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _grad_align(c: ATConfig) -> Method:
    player = GradAlign(c)
    return Method(player, player.leader, differentiates=True)


CE = frozenset({"label_smoothing", "clean_share"})
STEPS = frozenset({"attack_steps", "attack_size", "attack_start", "inner"})
LEARNED = frozenset({"attack_steps", "attack_size", "gradient_scale", "attacker_width", "attacker_rate"})
LEARNED |= {"attacker_decay", "freeze_attacker"}
PUBLISHED = LEARNED | {"attacker"}
BLIND = PUBLISHED - {"gradient_scale"}
STARTER = LEARNED | STEPS | {"attacker_every", "attacker_sees"}
RESIDUAL = STARTER | {"attacker_scale_rate"}
PRICE = frozenset({"regularisation"})
SMOOTHED = PRICE | {"label_smoothing"}

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
        STEPS | CE,
    ),
    "pgd": Recipe(
        "PGD-10, steps of ε/4 from a random start",
        "Madry et al., 2018",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25), _ce(c)),
        STEPS | CE,
    ),
    "pgd-2": Recipe(
        "PGD-2, steps of ε/2 from a random start",
        "as FAST-BAT's authors compare",
        lambda c, _: Method(Steepest(c, steps=2, size=0.5), _ce(c)),
        STEPS | CE,
    ),
    "l2l": Recipe(
        "learned residual attacker: two soft sign steps plus a learned correction, from the image's last perturbation",
        OURS,
        lambda c, channels: Method(Residual(c, channels), _ce(c)),
        RESIDUAL | CE,
    ),
    "l2l-naive": Recipe(
        "learned attacker that sees the image only",
        JIANG,
        lambda c, channels: Method(Published(c, channels, sees_gradient=False), _ce(c)),
        BLIND | CE,
    ),
    "l2l-grad": Recipe(
        "learned attacker that sees image and gradient, one step",
        JIANG,
        lambda c, channels: Method(Published(c, channels), _ce(c)),
        PUBLISHED | CE,
    ),
    "l2l-2step": Recipe(
        "the same, two steps, trained through both",
        JIANG,
        lambda c, channels: Method(Published(c, channels, steps=2), _ce(c)),
        PUBLISHED | CE,
    ),
    "l2l-kstep": Recipe(
        "the same, ten small steps, inputs detached",
        JIANG,
        # 0.007 for a radius of 0.031, as in the published code
        lambda c, channels: Method(Published(c, channels, steps=10, size=0.007 / 0.031, detach_inputs=True), _ce(c)),
        PUBLISHED | CE,
    ),
    "l2l-trades": Recipe(
        "the residual attacker under TRADES' loss",
        f"{OURS}, and Zhang et al., 2019",
        lambda c, channels: Method(Residual(c, channels, inner="kl"), leaders.trades(_or(c.regularisation, 6.0))),
        RESIDUAL | PRICE,
    ),
    "l2l-sdi": Recipe(
        "learned start of one signed step, refreshed every 20 batches",
        "in the style of FGSM-SDI, Jia et al., 2022",
        lambda c, channels: Method(
            Residual(c, channels, steps=1, size=1.0, start="zero", every=20, sign_step=1.0, soft_sign=False), _ce(c)
        ),
        STARTER | CE,
    ),
    "fast-bat": Recipe(
        "one gradient step with its derivative in the classifier's weights",
        "Zhang et al., 2022",
        lambda c, _: Method(FastBAT(c), _ce(c), differentiates=True),
        CE | {"bat_rate", "bat_lambda"},
    ),
    "trades": Recipe(
        "clean CE plus β KL, attacked by KL",
        "Zhang et al., 2019",
        lambda c, _: Method(
            Steepest(c, steps=10, size=0.25, start="noise", inner="kl"), leaders.trades(_or(c.regularisation, 6.0))
        ),
        STEPS | PRICE,
    ),
    "mart": Recipe(
        "margin CE plus β KL weighted by clean doubt",
        "Wang et al., 2020",
        lambda c, _: Method(Steepest(c, steps=10, size=0.25, start="noise"), leaders.mart(_or(c.regularisation, 5.0))),
        STEPS | PRICE,
    ),
    "arow": Recipe(
        "smoothed clean CE plus λ KL weighted by doubt under attack",
        "Yang et al., 2023",
        lambda c, _: Method(
            Steepest(c, steps=10, size=0.25, inner="kl"),
            leaders.arow(_or(c.regularisation, 7.0), _or(c.label_smoothing, 0.2)),
        ),
        STEPS | SMOOTHED,
    ),
    "cow": Recipe(
        "ARoW's variant with the clean confidence as weight",
        "Yang et al., 2023",
        lambda c, _: Method(
            Steepest(c, steps=10, size=0.25, inner="kl"),
            leaders.arow(_or(c.regularisation, 7.0), _or(c.label_smoothing, 0.2), weight="clean"),
        ),
        STEPS | SMOOTHED,
    ),
    "ro": Recipe(
        "robust optimisation: one steepest step in the ball, perturbed batch only",
        "Shaham et al., 2015",
        lambda c, _: Method(Steepest(c, steps=1, size=1.0, start="zero", training=True), _ce(c)),
        STEPS | CE,
    ),
    "free": Recipe(
        "each batch eight times, the perturbation steps along",
        "Shafahi et al., 2019",
        lambda c, _: Method(Free(c), _ce(c), replays=c.replays or 8),
        CE | {"attack_size", "replays"},
    ),
    "n-fgsm": Recipe(
        "noise of 2 ε, one step, no cut to the ball",
        "de Jorge et al., 2022",
        lambda c, _: Method(Noisy(c, noise=2.0), _ce(c)),
        CE | {"attack_size", "noise"},
    ),
    "grad-align": Recipe(
        "one step, and a price for gradients that turn inside the ball",
        "Andriushchenko et al., 2020",
        lambda c, _: _grad_align(c),
        PRICE,
    ),
}


def make(config: ATConfig, channels: int) -> Method:
    """The method that a configuration names, for images with so many channels."""
    if config.method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {config.method!r}")
    recipe, usual = METHODS[config.method], (ATConfig(), tuned(config.dataset))

    def given(names: frozenset[str]) -> list[str]:
        return sorted(n for n in names if all(getattr(config, n) != getattr(other, n) for other in usual))

    particular = frozenset().union(*(recipe.takes for recipe in METHODS.values()))
    if idle := given(particular - recipe.takes):
        raise UserError(f"{_flags(idle)} would change nothing: --method {config.method} does not look at it")
    for names, off, reason in _switched_off(config, published="attacker" in recipe.takes):
        if off and (idle := given(names)):
            raise UserError(f"{_flags(idle)} would change nothing {reason}")
    return recipe.make(config, channels)


def _switched_off(config: ATConfig, *, published: bool) -> list[tuple[frozenset[str], bool, str]]:
    """Settings that another one switches off: names, whether it does, and the words for it."""
    learning = frozenset({"attacker_rate", "attacker_decay", "attacker_scale_rate", "attacker_every"})
    return [
        (learning, config.freeze_attacker, "beside --freeze-attacker"),
        (frozenset({"attacker_width"}), published and config.attacker != "tiny", f"for --attacker {config.attacker}"),
        (frozenset({"awp_from"}), not config.awp, "without --awp"),
        (frozenset({"swa_from"}), config.average != "swa", "without --average swa"),
        (frozenset({"ema"}), config.average != "ema", "without --average ema"),
    ]


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
