"""How much a discriminator's rate matters: return and largest fall by rate, follower, penalty and demonstrations."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2l_experiment.setting_figures import heat_map, over_setting
from l2l_experiment.stability import late_fall

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
FOLLOWERS = ("adam", "l2l")
SEEDS = (0, 1, 2)
RETURN = "rollout/ep_rew_mean"


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
    late: float
    """The same once the return had come halfway to its best; NaN of a run that did not rise."""


BySeed = dict[int, Outcome]
Found = dict[Setting, dict[float, BySeed]]  # by setting and rate


def collect(runs: list[dict[str, Any]]) -> Found:
    """What came of every run of the sweep."""
    found: Found = defaultdict(lambda: {rate: {} for rate in RATES})
    for run in sorted(runs, key=lambda run: run["settings"]["seed"]):
        settings, result = run["settings"], run["result"]
        if settings["follower"] in FOLLOWERS and settings["disc_rate"] in RATES:
            key = Setting(settings["follower"], settings["gradient_penalty"], settings["num_demos"])
            outcome = Outcome(result["percent_of_expert"], *falls(run))
            found[key][settings["disc_rate"]][settings["seed"]] = outcome
    return {key: found[key] for key in sorted(found, key=lambda key: (key.demos, -key.penalty, key.follower))}


def falls(run: dict[str, Any]) -> tuple[float, float]:
    """Largest and late fall of a run's training return, the latter on the record's grid."""
    curve = [value for value in run["curves"][RETURN] if value is not None]
    return run["result"]["stability"]["largest_fall"], late_fall(curve)


def mean_of_known(rows: list[tuple[float, ...]]) -> list[float]:
    """Means over runs, each over those that have the figure; NaN where none has."""
    columns = [[value for value in column if np.isfinite(value)] for column in zip(*rows, strict=True)]
    return [float(np.mean(column)) if column else np.nan for column in columns]


def comparable(found: Found, task: str) -> tuple[list[float], list[int]]:
    """Rates and seeds that both followers have of a task, no cell missing: all rates with all of `SEEDS`, or if there
    are fewer than two of those, the seeds that every rate with runs has."""
    settings = [by_rate for key, by_rate in found.items() if key.task == task]
    full = [rate for rate in RATES if all(set(SEEDS) <= by_rate[rate].keys() for by_rate in settings)]
    if len(full) > 1:
        return full, list(SEEDS)
    some = [rate for rate in RATES if all(by_rate[rate] for by_rate in settings)]
    return some, [seed for seed in SEEDS if all(seed in by_rate[rate] for by_rate in settings for rate in some)]


def of(found: Found, follower: str, task: str) -> dict[float, BySeed]:
    """What came of one follower on one task, by rate."""
    return next(by_rate for key, by_rate in found.items() if (key.follower, key.task) == (follower, task))


def table(found: Found) -> list[str]:
    """The figure of merit: the worst rate's mean, the worst run, and the rate that tuning would have chosen; over the
    rates that both followers have, with all seeds."""
    heads = ["setting", "n", "worst rate, mean %", "worst run, %", "best rate, mean %"]
    heads += ["largest fall: worst rate, mean", "late fall: worst rate, mean"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for key, by_rate in found.items():
        rates, seeds = comparable(found, key.task)
        if not seeds:
            continue
        cells = {rate: list(by_rate[rate].values()) for rate in rates}
        means = {rate: Outcome(*mean_of_known(some)) for rate, some in cells.items()}
        worst, best = (choose(means, key=lambda rate: means[rate].percent) for choose in (min, max))
        fall, late = (max(means, key=lambda rate, part=part: np.nan_to_num(means[rate][part])) for part in (1, 2))
        lowest = min(outcome.percent for some in cells.values() for outcome in some)
        lines.append(
            f"| {key} | {sum(map(len, cells.values()))} over {len(rates)} rates "
            f"| {means[worst].percent:.1f} at {rate_name(worst)} | {lowest:.1f} "
            f"| {means[best].percent:.1f} at {rate_name(best)} "
            f"| {means[fall].fall:.0f} at {rate_name(fall)} | {means[late].late:.0f} at {rate_name(late)} |"
        )
    return lines


def draw(found: Found, path_stem: Path) -> list[str]:
    """Heat maps of return and largest fall, and curves; returns the lines that show them."""
    measured = [rate for rate in RATES if any(by_rate[rate] for by_rate in found.values())]
    labels = {"xlabel": "the discriminator's rate; for L2L the one that it starts from", "ylabel": ""}

    def cells(part: int) -> dict[tuple[str, str], list[float]]:
        return {
            (str(key), rate_name(rate)): [outcome[part] for outcome in found[key][rate].values()]
            for key in found
            for rate in measured
        }

    percents, _ = heat_map(
        cells(0), path_stem, title="HalfCheetah-v4: % of the demonstrations' return", limits=(0, 100), **labels
    )
    falls, _ = heat_map(
        cells(1),
        path_stem.with_name(f"{path_stem.name}_falls"),
        title="HalfCheetah-v4: largest fall of the training return (early dips too)",
        limits=(0, max(fall for some in cells(1).values() for fall in some)),
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
    """Return and largest fall over the rate for one task, both followers, every run that there is."""
    rates, _ = comparable(found, task)
    if len(rates) < 2:
        return []
    lines = []
    for part, what, name in ((0, "% of the demonstrations' return", ""), (1, "largest fall of the return", "_falls")):
        png, _ = over_setting(
            {
                key.follower: {rate_name(rate): [out[part] for out in by_rate[rate].values()] for rate in rates}
                for key, by_rate in found.items()
                if key.task == task
            },
            f"{path_stem}_curves{name}_{task.replace(', ', '_').replace(' ', '').lower()}",
            title=f"HalfCheetah-v4, {task}: {what}",
            xlabel="the discriminator's rate; for L2L the one that it starts from",
            ylabel=what,
        )
        lines += ["", f"![the same as curves, {task}, {what}](gail/{png.name})"]
    return lines


def rate_name(rate: float, digits: int = 0) -> str:
    """3e-5, as a flag has it, with so many digits behind the point."""
    return f"{rate:.{digits}e}".replace("e-0", "e-")
