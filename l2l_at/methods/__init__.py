"""The methods by name: for each, a follower and a leader's loss."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from l2l_at.config import ATConfig, tuned
from l2l_at.methods import leaders
from l2l_at.methods.base import Follower, Leader, Method, MethodOutput
from l2l_at.methods.fast_bat import FastBAT
from l2l_at.methods.grad_align import GradAlign
from l2l_at.methods.published import Published
from l2l_at.methods.residual import Residual
from l2l_at.methods.steepest import AutoPGD, Free, Noisy, Nothing, Steepest
from l2l_at.threat import Norm
from l2l_experiment.errors import UserError
from l2l_experiment.settings import reject_unused

__all__ = ["METHODS", "MethodOutput", "Follower", "Leader", "Method", "Recipe", "check", "make"]


@dataclass(frozen=True)
class Recipe:
    """A method's name in the world, and how it is put together for a configuration and a number of channels."""

    summary: str
    source: str
    make: Callable[[ATConfig, int], Method]
    takes: frozenset[str] = frozenset()  # What it looks at of the settings that only some do; others are refused
    norms: tuple[Norm, ...] = get_args(Norm)  # Those that it knows

    def __str__(self) -> str:
        return f"{self.summary} ({self.source})"


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value


@dataclass(frozen=True)
class Loss:
    """A leader for a configuration, and what it looks at of the settings that only some methods look at."""

    make: Callable[[ATConfig], Leader]
    takes: frozenset[str]


def _arow(c: ATConfig, weight: str) -> Leader:
    strength, smoothing = _or_default(c.regularisation, 7.0), _or_default(c.label_smoothing, 0.2)
    return partial(leaders.arow, strength=strength, smoothing=smoothing, weight=weight)


WEIGHT, SMOOTHING = frozenset({"regularisation"}), frozenset({"label_smoothing"})
CE = Loss(lambda c: leaders.cross_entropy(c.label_smoothing or 0.0, c.clean_share), SMOOTHING | {"clean_share"})
TRADES = Loss(lambda c: partial(leaders.trades, beta=_or_default(c.regularisation, 6.0)), WEIGHT)
MART = Loss(lambda c: partial(leaders.mart, beta=_or_default(c.regularisation, 5.0)), WEIGHT)
AROW = Loss(lambda c: _arow(c, "attacked"), WEIGHT | SMOOTHING)
COW = Loss(lambda c: _arow(c, "clean"), WEIGHT | SMOOTHING)

ATTACK = frozenset({"attack_steps", "attack_step_size", "attack_start", "inner"})
LEARNED = frozenset({"attack_steps", "attack_step_size", "freeze_attacker", "attacker_width"})
LEARNED |= {"gradient_scale", "attacker_learning_rate", "attacker_decay"}


def _steepest(summary: str, source: str, loss: Loss = CE, **attack: Any) -> Recipe:
    """Steepest steps, a hand-designed attack."""
    return Recipe(summary, source, lambda c, _: Method(Steepest(c, **attack), loss.make(c)), ATTACK | loss.takes)


def _residual(summary: str, source: str, loss: Loss = CE, *, soft_sign: bool = True, **attack: Any) -> Recipe:
    """The residual learned attacker."""
    takes = LEARNED | ATTACK | loss.takes | {"attacker_every", "attacker_sees"}
    return Recipe(
        summary,
        source,
        lambda c, channels: Method(Residual(c, channels, soft_sign=soft_sign, **attack), loss.make(c)),
        takes | {"attacker_scale_learning_rate"} if soft_sign else takes,
    )


def _published(summary: str, *, sees_gradient: bool = True, **attack: Any) -> Recipe:
    """A learned attacker in its published form."""
    takes = LEARNED | CE.takes | {"attacker"}
    return Recipe(
        summary,
        "Jiang et al., 2021",
        lambda c, channels: Method(Published(c, channels, sees_gradient=sees_gradient, **attack), CE.make(c)),
        takes if sees_gradient else takes - {"gradient_scale"},
        norms=("linf",),
    )


def _grad_align(c: ATConfig, _: int) -> Method:
    player = GradAlign(c)
    return Method(player, player.leader, double_backward=True)


# A start that the network makes alone, and a signed step from it; robust optimisation's step, as it is published.
SDI = {"steps": 1, "size": 1.0, "start": "zero", "every": 20, "sign_step": 1.0, "soft_sign": False}
RO = {"steps": 1, "size": 1.0, "start": "zero", "training": True}

METHODS: dict[str, Recipe] = {
    "standard": Recipe(
        "clean images, no defence",
        "the baseline without a defence",
        lambda c, _: Method(Nothing(c), leaders.clean, defends=False),
    ),
    "fgsm-rs": _steepest("one step of 1.25 ε from a random start", "Wong et al., 2020", steps=1, size=1.25),
    "pgd": _steepest("PGD-10, steps of ε/4 from a random start", "Madry et al., 2018"),
    "pgd-2": _steepest("PGD-2, steps of ε/2 from a random start", "as FAST-BAT's authors compare", steps=2, size=0.5),
    "apgd": Recipe(
        "Auto-PGD: ten steps with momentum that halve by themselves, from a random start",
        "Croce and Hein, 2020; there to test defences",
        lambda c, _: Method(AutoPGD(c), CE.make(c)),
        CE.takes | ATTACK - {"attack_step_size"},
        norms=("linf", "l2"),
    ),
    "l2l": _residual(
        "learned residual attacker: two soft sign steps plus a learned correction, from the image's last perturbation",
        "ours, after Jiang et al., 2021",
    ),
    "l2l-naive": _published("learned attacker that sees the image only", sees_gradient=False),
    "l2l-grad": _published("learned attacker that sees image and gradient, one step"),
    "l2l-2step": _published("the same, two steps, trained through both", steps=2),
    "l2l-kstep": _published(  # 0.007 for a radius of 0.031, as in the published code
        "the same, ten small steps, inputs detached", steps=10, size=0.007 / 0.031, detach_inputs=True
    ),
    "l2l-trades": _residual(
        "the residual attacker under TRADES' loss",
        "ours, after Jiang et al., 2021, and Zhang et al., 2019",
        TRADES,
        inner="kl",
    ),
    "l2l-sdi": _residual(
        "learned start of one signed step, refreshed every 20 batches",
        "in the style of FGSM-SDI, Jia et al., 2022",
        **SDI,
    ),
    "fast-bat": Recipe(
        "one gradient step with its derivative in the classifier's weights",
        "Zhang et al., 2022",
        lambda c, _: Method(FastBAT(c), CE.make(c), double_backward=True),
        CE.takes | {"bat_step_size", "bat_lambda"},
        norms=("linf",),
    ),
    "trades": _steepest("clean CE plus β KL, attacked by KL", "Zhang et al., 2019", TRADES, start="noise", inner="kl"),
    "mart": _steepest("margin CE plus β KL weighted by clean doubt", "Wang et al., 2020", MART, start="noise"),
    "arow": _steepest(
        "smoothed clean CE plus λ KL weighted by doubt under attack", "Yang et al., 2023", AROW, inner="kl"
    ),
    "cow": _steepest("ARoW's variant with the clean confidence as weight", "Yang et al., 2023", COW, inner="kl"),
    "ro": _steepest(
        "robust optimisation: one steepest step in the ball, perturbed batch only", "Shaham et al., 2015", **RO
    ),
    "free": Recipe(
        "each batch eight times, the perturbation steps along",
        "Shafahi et al., 2019",
        lambda c, _: Method(Free(c), CE.make(c), replays=c.replays or 8),
        CE.takes | {"attack_step_size", "replays"},
    ),
    "n-fgsm": Recipe(
        "noise of 2 ε, one step, no cut to the ball",
        "de Jorge et al., 2022",
        lambda c, _: Method(Noisy(c), CE.make(c)),
        CE.takes | {"attack_step_size", "noise"},
        norms=("linf",),
    ),
    "grad-align": Recipe(
        "one step, and a penalty on gradients that turn inside the ball",
        "Andriushchenko et al., 2020",
        _grad_align,
        WEIGHT,
        norms=("linf",),
    ),
}


SHIPPED = frozenset(METHODS)  # those that any program knows


def check(config: ATConfig) -> Recipe:
    """The recipe of the method that a configuration names. UserError for an unknown name, a norm that the method does
    not know, and settings that would change nothing."""
    if config.method not in METHODS:
        own = "one of your own is known only to the file that adds it to METHODS: run that"
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {config.method!r}; {own}")
    recipe, usual = METHODS[config.method], (ATConfig(), tuned(config.dataset))
    if config.norm not in recipe.norms:
        known = " and ".join(recipe.norms)
        raise UserError(f"--method {config.method} knows {known} only, not {config.norm}; l2l and pgd know all norms")
    particular = frozenset().union(*(recipe.takes for recipe in METHODS.values()))
    learning = {"attacker_learning_rate", "attacker_decay", "attacker_scale_learning_rate", "attacker_every"}
    unused = "attacker" in recipe.takes and config.attacker != "tiny"
    for names, off, reason in (
        (particular - recipe.takes, True, f"with --method {config.method}"),
        (learning, config.freeze_attacker, "beside --freeze-attacker"),
        ({"attacker_width"}, unused, f"for --attacker {config.attacker}"),
        ({"awp_from"}, not config.awp, "without --awp"),
        ({"swa_from"}, config.average != "swa", "without --average swa"),
        ({"ema"}, config.average != "ema", "without --average ema"),
    ):
        if off:
            reject_unused(config, usual, frozenset(names), reason)
    return recipe


def make(config: ATConfig, channels: int) -> Method:
    """The method that a configuration names, for images with so many channels; UserError as `check` has it."""
    return check(config).make(config, channels)
