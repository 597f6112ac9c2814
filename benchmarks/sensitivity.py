"""How much a discriminator's rate matters: percent of the expert by rate, follower, penalty and demonstrations."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from l2l_experiment.figures import heat_map, learning_curves

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
FOLLOWERS = ("adam", "l2l")
Key = tuple[str, float, int]  # follower, gradient penalty, demonstrations


def collect(runs: list[dict[str, Any]]) -> dict[Key, dict[float, list[float]]]:
    """Percent of the expert of every run, by setting and rate."""
    found: dict[Key, dict[float, list[float]]] = defaultdict(lambda: {rate: [] for rate in RATES})
    for run in sorted(runs, key=lambda run: run["settings"]["seed"]):
        settings = run["settings"]
        if settings["follower"] in FOLLOWERS and settings["disc_rate"] in RATES:
            key = settings["follower"], settings["gradient_penalty"], settings["num_demos"]
            found[key][settings["disc_rate"]].append(run["result"]["percent_of_expert"])
    return {key: found[key] for key in sorted(found, key=lambda key: (key[2], -key[1], key[0]))}


def words(key: Key) -> str:
    """A setting in words."""
    follower, penalty, demos = key
    return f"{follower}, GP {penalty:g}, {demos} demo{'' if demos == 1 else 's'}"


def table(found: dict[Key, dict[float, list[float]]]) -> list[str]:
    """The figure of merit: the worst rate's mean, the worst run, and the rate that tuning would have chosen."""
    lines = ["| setting | n | worst rate, mean % | worst run, % | best rate, mean % |", "|---|---|---|---|---|"]
    for key, by_rate in found.items():
        means = {rate: float(np.mean(values)) for rate, values in by_rate.items() if values}
        worst, best = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        lowest = min(value for values in by_rate.values() for value in values)
        count = f"{sum(map(len, by_rate.values()))} over {len(means)} rates"
        lines.append(
            f"| {words(key)} | {count} | {means[worst]:.1f} at {_rate(worst)} | {lowest:.1f} "
            f"| {means[best]:.1f} at {_rate(best)} |"
        )
    return lines


def draw(found: dict[Key, dict[float, list[float]]], path_stem: Path) -> list[str]:
    """The heat map; returns the line that shows it."""
    measured = [rate for rate in RATES if any(by_rate[rate] for by_rate in found.values())]
    cells = {(words(key), _rate(rate)): by_rate[rate] for key, by_rate in found.items() for rate in measured}
    png, _ = heat_map(
        cells,
        path_stem,
        title="HalfCheetah-v4: % of the demonstrations' return",
        xlabel="the discriminator's rate; for L2L the one that it starts from",
        ylabel="",
        limits=(0, 100),
    )
    return [f"![percent of the expert over discriminator rates](gail/{png.name})", "", *draw_curves(found, path_stem)]


def draw_curves(found: dict[Key, dict[float, list[float]]], path_stem: Path) -> list[str]:
    """The same as curves over the rate, a thin line a seed, with the band of their mean."""
    groups = {}
    for key, by_rate in found.items():
        rates = [rate for rate in RATES if by_rate[rate]]
        seeds = min((len(by_rate[rate]) for rate in rates), default=0)
        if len(rates) > 1:
            groups[words(key)] = [(np.log10(rates), [by_rate[rate][seed] for rate in rates]) for seed in range(seeds)]
    png, _ = learning_curves(
        groups,
        f"{path_stem}_curves",
        title="HalfCheetah-v4: % of the demonstrations' return",
        xlabel="log10 of the discriminator's rate; for L2L of the one that it starts from",
        ylabel="% of the demonstrations' return",
    )
    return [f"![the same as curves](gail/{png.name})"]


def _rate(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")
