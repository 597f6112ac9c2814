"""How much a discriminator's rate matters: return and largest fall by rate, follower, penalty and demonstrations."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2l_experiment.figures import heat_map, learning_curves

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
FOLLOWERS = ("adam", "l2l")


class Setting(NamedTuple):
    """What stays the same over a row of rates."""

    follower: str
    penalty: float
    demos: int

    @property
    def task(self) -> str:
        """What both followers are given, in words."""
        return f"GP {self.penalty:g}, {self.demos} demo{'' if self.demos == 1 else 's'}"

    def __str__(self) -> str:
        return f"{self.follower}, {self.task}"


class Outcome(NamedTuple):
    """What came of a run."""

    percent: float
    """Final deterministic return, in percent of the expert's."""
    fall: float
    """Largest fall of the training return on the way."""


Found = dict[Setting, dict[float, list[Outcome]]]  # by setting and rate, in the order of seeds


def collect(runs: list[dict[str, Any]]) -> Found:
    """What came of every run of the sweep."""
    found: Found = defaultdict(lambda: {rate: [] for rate in RATES})
    for run in sorted(runs, key=lambda run: run["settings"]["seed"]):
        settings, result = run["settings"], run["result"]
        if settings["follower"] in FOLLOWERS and settings["disc_rate"] in RATES:
            key = Setting(settings["follower"], settings["gradient_penalty"], settings["num_demos"])
            outcome = Outcome(result["percent_of_expert"], result["stability"]["largest_fall"])
            found[key][settings["disc_rate"]].append(outcome)
    return {key: found[key] for key in sorted(found, key=lambda key: (key.demos, -key.penalty, key.follower))}


def table(found: Found) -> list[str]:
    """The figure of merit: the worst rate's mean, the worst run, and the rate that tuning would have chosen."""
    heads = ["setting", "n", "worst rate, mean %", "worst run, %", "best rate, mean %"]
    heads += ["largest fall: worst rate, mean", "best rate, mean"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for key, by_rate in found.items():
        means = {rate: Outcome(*np.mean(some, axis=0)) for rate, some in by_rate.items() if some}
        worst, best = min(means, key=lambda rate: means[rate].percent), max(means, key=lambda rate: means[rate].percent)
        falls = sorted(means, key=lambda rate: means[rate].fall)
        lowest = min(outcome.percent for some in by_rate.values() for outcome in some)
        lines.append(
            f"| {key} | {sum(map(len, by_rate.values()))} over {len(means)} rates "
            f"| {means[worst].percent:.1f} at {_rate(worst)} | {lowest:.1f} "
            f"| {means[best].percent:.1f} at {_rate(best)} "
            f"| {means[falls[-1]].fall:.0f} at {_rate(falls[-1])} | {means[falls[0]].fall:.0f} at {_rate(falls[0])} |"
        )
    return lines


def draw(found: Found, path_stem: Path) -> list[str]:
    """Heat maps of return and largest fall, and curves; returns the lines that show them."""
    measured = [rate for rate in RATES if any(by_rate[rate] for by_rate in found.values())]
    labels = {"xlabel": "the discriminator's rate; for L2L the one that it starts from", "ylabel": ""}
    percents, _ = heat_map(
        {(str(key), _rate(rate)): [o.percent for o in found[key][rate]] for key in found for rate in measured},
        path_stem,
        title="HalfCheetah-v4: % of the demonstrations' return",
        limits=(0, 100),
        **labels,
    )
    falls, _ = heat_map(
        {(str(key), _rate(rate)): [o.fall for o in found[key][rate]] for key in found for rate in measured},
        path_stem.with_name(f"{path_stem.name}_falls"),
        title="HalfCheetah-v4: largest fall of the training return",
        limits=(0, max(o.fall for by_rate in found.values() for some in by_rate.values() for o in some)),
        worst=max,
        **labels,
    )
    return [
        f"![percent of the expert over discriminator rates](gail/{percents.name})",
        "",
        f"![largest fall over discriminator rates](gail/{falls.name})",
        *[line for task in dict.fromkeys(key.task for key in found) for line in draw_curves(found, task, path_stem)],
    ]


def draw_curves(found: Found, task: str, path_stem: Path) -> list[str]:
    """Return over the rate for one task, a thin line a seed, with the band of their mean; both followers."""
    groups = {}
    for key, by_rate in found.items():
        rates = [rate for rate in RATES if by_rate[rate]]
        if key.task == task and len(rates) > 1:
            seeds = range(min(len(by_rate[rate]) for rate in rates))
            groups[key.follower] = [(np.log10(rates), [by_rate[r][seed].percent for r in rates]) for seed in seeds]
    if not groups:
        return []
    png, _ = learning_curves(
        groups,
        f"{path_stem}_curves_{task.replace(', ', '_').replace(' ', '').lower()}",
        title=f"HalfCheetah-v4, {task}: % of the demonstrations' return",
        xlabel="the discriminator's rate; for L2L the one that it starts from",
        ylabel="% of the demonstrations' return",
        colours=FOLLOWERS,
        ticks={float(np.log10(rate)): _rate(rate) for rate in RATES},
    )
    return ["", f"![the same as curves, {task}](gail/{png.name})"]


def _rate(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")
