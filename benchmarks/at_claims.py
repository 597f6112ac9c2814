"""What the pages say of adversarial training in sentences, and where it comes from (see claims.py)."""

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from at_report import comparisons, with_related
from at_tables import (
    DATA,
    DIGITS,
    after_all,
    after_both,
    broken_by_standard,
    cost_of,
    grouped,
    raised,
    read_costs,
    recorded,
)
from cifar_claims import cifar_claims
from claims import Claim
from pages import gaps, interval, standard_error

from l2l_at.graders import FOOLBOX

ONE_STEP = ("l2l-naive", "l2l-grad")  # of the published forms
AVERAGED = (("pgd-swa", "pgd"), ("pgd-awp", "pgd"), ("arow-awp", "arow"), ("arow-swa", "arow"))
FROM_STARTS = ("0.02", "0.05", "0.2", "3")  # step sizes over the radius
Scores = dict[str, dict[int, float]]  # percent by group, which is METHOD_RADIUS, and seed


def at_claims() -> dict[str, list[Claim]]:
    """Claims by page, named from the root of the checkout."""
    results = [*digits(), *zoo(), *collapse(), *ablation(), *step_length(), *rates(), *norms(), *inside()]
    results += cifar_claims()
    return {
        "README.md": readme(),
        "docs/at.md": choice(),
        "docs/methods/l2l.md": own_cost(),
        "docs/methods/l2l-published.md": published_cost(),
        "docs/results/at.md": results,
    }


def scores(*experiments: str, of: Callable[[dict[str, Any]], float] = after_both) -> Scores:
    """Accuracies of the runs of some experiments, those included that stand in their tables."""
    found: Scores = defaultdict(dict)
    for name in experiments:
        for run in with_related(name, recorded(name)).values():
            found[run["group"]][run["settings"]["seed"]] = of(run)
    return found


def everything() -> Scores:
    """Of all methods on digits, judged as the overview judges them."""
    return scores("digits", "frozen", "zoo")


def gap(found: Scores, one: str, other: str) -> float:
    """One group minus another on the seeds that both have, on average."""
    return float(np.mean(gaps(found[one], found[other])))


def reach(found: Scores, one: str, other: str) -> tuple[float, float]:
    """Student's t interval of `gap`."""
    return interval(gaps(found[one], found[other]))[1:]


def mean(found: Scores, group: str) -> float:
    """A group's mean over seeds."""
    return float(np.mean([*found[group].values()]))


def cost(method: str) -> float:
    """Of a training step on digits over PGD-10's."""
    return cost_of(read_costs(), DIGITS, method)


def clean(group: str) -> float:
    """Accuracy of a group of digits on clean test images, percent."""
    members = grouped(recorded("digits") | recorded("zoo"))[group]
    return float(np.mean([100 * run["result"]["grade"]["clean"] for run in members]))


def readme() -> list[Claim]:
    """The README's sentences beside the table of digits."""
    found, steps = everything(), scores("step-length")
    broken, _, runs = broken_by_standard()
    larger, smaller = clean("pgd_0.2"), clean("l2l-trades_0.2")
    return [
        Claim("all four, where they were run, break {} images more in {} runs", (broken, runs)),
        Claim(
            "costs {:.2f} of PGD-10's time and, at ε = 0.2, gives up {:.1f} points",
            (cost("l2l-trades"), larger - smaller),
        ),
        Claim("nothing at ε = 0.1 and {:.1f} points at 0.2", (gap(found, "l2l-trades_0.2", "l2l-trades-frozen_0.2"),)),
        Claim("(95 % interval {:.1f} to {:.1f}, one of many", reach(found, "l2l-trades_0.2", "l2l-trades-frozen_0.2")),
        Claim(
            "step sizes of 0.02, 0.05 and 0.2 ε it is, by {:.1f}, {:.1f} and {:.1f} points; at 3 ε the {:.1f} points",
            [gap(steps, f"l2l-{size}_0.2", f"frozen-{size}_0.2") for size in FROM_STARTS],
        ),
    ]


def choice() -> list[Claim]:
    """When not to use the learned attacker."""
    middle = -gap(found := scores("digits", of=after_all), "l2l_0.2", "pgd_0.2")
    low, high = (-end for end in reversed(reach(found, "l2l_0.2", "pgd_0.2")))
    farther = gap(scores("collapse"), "pgd_0.3", "l2l_0.3")
    figures = (middle, low, high, farther)
    return [
        Claim(
            "is {:.1f} points more robust on digits at ε = 0.2 (95 % interval {:.1f} to {:.1f}), {:.1f} at 0.3", figures
        )
    ]


def own_cost() -> list[Claim]:
    """What the residual attacker costs."""
    figures = (read_costs()["cifar10", "resnet18", 512, "l2l"], cost("l2l"))
    return [Claim("a step is {:.2f} of PGD-10's there (H100, batch 512), and {:.2f} with the CNN", figures)]


def published_cost() -> list[Claim]:
    """What the published attackers cost."""
    figures = [read_costs()["cifar10", "resnet18", size, "l2l-grad, wide"] for size in (512, 128)]
    return [Claim("In time it is {:.2f} of PGD-10's step on an H100 at batch 512, and {:.2f} at 128", figures)]


def digits() -> list[Claim]:
    """Below the first tables of the results."""
    found = scores("digits", "frozen", of=after_all)
    ended = [run for group, some in grouped(recorded("digits")).items() if group[:-4] in ONE_STEP for run in some]
    ended = [run for run in ended if run["settings"]["eps"] == "0.2"]
    rung = int(raised(ended).split("(")[1].rstrip(")"))
    learned = [gap(found, f"l2l_{eps}", f"frozen_{eps}") for eps in ("0.1", "0.2")]
    furthest = [max(map(abs, reach(found, f"l2l_{eps}", f"frozen_{eps}"))) for eps in ("0.1", "0.2")]
    return [
        Claim(
            "is known to {:.1f} points (where nine in ten withstand) or {:.1f} (where two in three do)",
            [standard_error(share, graded_images()) for share in (9 / 10, 2 / 3)],
        ),
        Claim(
            "`l2l` ends {:.1f} points below PGD-10 at ε = 0.1, within the interval, and {:.1f} at ε = 0.2, beyond it, "
            "for {:.2f} of its cost. One-step FGSM-RS is {:.1f} points behind it at ε = 0.2",
            [
                *(gap(found, f"pgd_{eps}", f"l2l_{eps}") for eps in ("0.1", "0.2")),
                cost("l2l"),
                gap(found, "l2l_0.2", "fgsm-rs_0.2"),
            ],
        ),
        Claim("for those that take one step, in {} of {} runs", (rung, len(ended))),
        Claim(
            "nothing: {:+.1f} and {:+.1f} points, with intervals that reach {:.1f} and {:.1f}", [*learned, *furthest]
        ),
    ]


def graded_images() -> int:
    """How many test images the runs on digits were graded on."""
    (count,) = {run["result"]["grade"]["n"] for run in recorded("digits").values()}
    return count


def intervals() -> int:
    """How many differences the page's tables tell with an interval."""
    tables = comparisons(read_costs())
    return sum(line.startswith("| `") for name in tables if name.endswith("paired") for line in tables[name])


def zoo() -> list[Claim]:
    """What stands out among all methods."""
    found = everything()
    small, large = "l2l-trades_0.1", "l2l-trades_0.2"
    below = [gap(found, f"{name}_0.2", f"{base}_0.2") for name, base in AVERAGED]
    return [
        Claim(
            "{:.1f} and {:.1f} points above PGD-10, for {:.2f} of its cost",
            [*(gap(found, f"trades_{eps}", f"pgd_{eps}") for eps in ("0.1", "0.2")), cost("trades")],
        ),
        Claim(
            "level with PGD-10 at both radii for {:.2f} of its cost, {:.1f} and {:.1f} points above `l2l` and "
            "{:.1f} and {:.1f} below TRADES",
            [
                cost("l2l-trades"),
                *(gap(found, group, f"l2l_{group[-3:]}") for group in (small, large)),
                *(-gap(found, group, f"trades_{group[-3:]}") for group in (small, large)),
            ],
        ),
        Claim("is not told from TRADES at ε = 0.2 ({:.1f} to {:+.1f})", reach(found, "mart_0.2", "trades_0.2")),
        Claim("This page has {} such intervals", (intervals(),)),
        Claim("as TRADES does: {:.1f} %, PGD-10 {:.1f}", (clean(large), clean("pgd_0.2"))),
        Claim(
            "adds {:.1f} points at ε = 0.1, which is nothing, and {:.1f} at ε = 0.2 (95 % interval {:.1f} to {:.1f})",
            [
                *(gap(found, group, f"l2l-trades-frozen_{group[-3:]}") for group in (small, large)),
                *reach(found, large, "l2l-trades-frozen_0.2"),
            ],
        ),
        Claim(
            "CoW, its variant with the clean confidence, is {:.1f} points behind it",
            (gap(found, "trades_0.2", "cow_0.2"),),
        ),
        Claim("for a fifth of the cost, and {:.0f} points behind PGD-10", (gap(found, "pgd_0.2", "n-fgsm_0.2"),)),
        Claim("ε = 0.1 and {:.1f} points above it at ε = 0.2", (gap(found, "fast-bat_0.2", "fgsm-rs_0.2"),)),
        Claim("which at ε = 0.2 costs {:.0f} points", (gap(found, "fast-bat_0.2", "fast-bat-consistent_0.2"),)),
        Claim(
            "At ε = 0.2 **RO** is {:.1f} points behind FGSM-RS (every seed), **Free** {:.1f}, and **GradAlign** {:.1f}",
            [gap(found, "fgsm-rs_0.2", f"{name}_0.2") for name in ("ro", "free", "grad-align")],
        ),
        Claim("at ε = 0.1 and costs {:.1f} to {:.1f} points at ε = 0.2", (-max(below), -min(below))),
    ]


def collapse() -> list[Claim]:
    """Where one step is not enough."""
    found = scores("collapse")
    figures = [mean(found, f"{name}_0.3") for name in ("pgd", "l2l", "fast-bat")]
    return [Claim("PGD ({:.1f} %), `l2l` ({:.1f} %) and FAST-BAT ({:.1f} %) train without an alarm", figures)]


def ablation() -> list[Claim]:
    """What the learned attacker is made of."""
    found = scores("ablation")
    kept = [gap(found, "as-it-is_0.2", name) for name in ("1-step", "random-start")]
    return [
        Claim(
            "(one step is {:.1f} points lower) and going on from the last perturbation (a random start is {:.1f} "
            "points lower; frozen, on the same seeds, {:.1f})",
            [*kept, memory()],
        ),
        Claim("A third step adds {:.1f} points", (gap(found, "3-steps", "as-it-is_0.2"),)),
        Claim("`--freeze-attacker` is as good and costs {:.2f}", (cost("frozen"),)),
    ]


def step_length() -> list[Claim]:
    """A step size that nobody tuned."""
    found = scores("step-length")
    worst = [min(mean(found, group) for group in found if group.startswith(who)) for who in ("l2l", "frozen")]
    by_size = [gap(found, f"l2l-{size}_0.2", f"frozen-{size}_0.2") for size in FROM_STARTS]
    return [
        Claim("the worst `l2l` is {:.0f} points above the worst frozen attacker", (worst[0] - worst[1],)),
        Claim("{:.1f}, {:.1f}, {:.1f} and {:.1f} points at 0.02, 0.05, 0.2 and 3", by_size),
    ]


def memory() -> float:
    """What going on from the last perturbation adds where nothing is learned, ε = 0.2, on the same seeds, in points."""
    start = {"last": everything()["frozen_0.2"], "random": scores("random-start")["frozen_0.2"]}
    return gap(start, "last", "random")


def rates() -> list[Claim]:
    """The attacker's rate, now and from random starts."""
    now, before = scores("attacker-rate"), scores("random-start")

    def spread(eps: str) -> float:
        means = [mean(now, group) for group in now if group.endswith(f"_{eps}")]
        return max(means) - min(means)

    full = [mean(before, group) for group, of in before.items() if group.startswith("rate") and len(of) > 2]
    frozen = mean(before, "frozen_0.2")
    return [
        Claim(
            "means lie within {:.1f} points of each other at ε = 0.1, where the frozen attacker is the best, and "
            "within {:.1f} at ε = 0.2",
            [spread(eps) for eps in ("0.1", "0.2")],
        ),
        Claim("the learning added at best {:.1f} points to the frozen start", (max(full) - frozen,)),
        Claim("the memory added more ({:.1f} points, both frozen", (memory(),)),
    ]


def inside() -> list[Claim]:
    """Inside two runs."""

    def drawn(name: str) -> dict[str, Any]:
        return json.loads((DATA / f"diagnosis_{name}.json").read_text())["drawings"]

    claims = []
    for name in ("as_it_is", "small_step"):
        found = drawn(name)
        (_, share), *_ = found["strength"]["curves"]["of what PGD-10 adds to the loss"]
        (_, losses), *_ = found["ladder"]["curves"]["PGD"]
        (alone,) = found["ladder"]["labels"]["reference"].values()
        if name == "as_it_is":
            claims.append(Claim("what PGD-10 adds to the loss it adds {:.2f} at least", (min(share),)))
            told = "A new image, without its memory, has a loss of {:.2f}, between PGD-1's {:.2f} and PGD-2's {:.2f}"
            claims.append(Claim(told, (alone, *losses[:2])))
        else:
            claims.append(Claim("falls to {:.2f} and is {:.2f} at the end", (min(share), share[-1])))
            claims.append(
                Claim("that of a new image is {:.2f}, where one step of PGD makes {:.2f}", (alone, losses[0]))
            )
    return claims


def norms() -> list[Claim]:
    """Robust optimisation in ℓ2 and ℓ1."""
    found, second = scores("norms"), scores("norms", of=by_foolbox)
    return [
        Claim("In ℓ2 one steepest step is {:.1f} points behind PGD-10", (gap(found, "pgd_l2_0.5", "ro_l2_0.5"),)),
        Claim("it is {:.0f} points behind", (gap(found, "pgd_l1_2", "ro_l1_2"),)),
        Claim(
            "ℓ1 attack leaves {:.0f} and {:.0f} points more than AutoAttack's",
            [mean(second, group) - mean(found, group) for group in ("pgd_l1_2", "ro_l1_2")],
        ),
    ]


def by_foolbox(run: dict[str, Any]) -> float:
    """Percent of the test images that withstand the second opinion."""
    return 100 * run["result"]["grade"]["attacks"][FOOLBOX]
