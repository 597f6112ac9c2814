"""All tables of the README, from the records in docs/results/: python benchmarks/readme_report.py"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import sensitivity
import tyro
from at_report import methods_table
from at_sensitivity import DEFAULT_SIZE
from at_tables import after_both, digits_table, read_costs
from at_tables import recorded as defences
from campaign import ROOT
from gail_tables import ONE_PENALISED, readme_tables, swept
from pages import README, update
from turns import ratios

from l2l_experiment.stability import bootstrap_interval

RESULTS = ROOT / "docs" / "results"
EPS = "0.2"
ByValue = dict[str, dict[int, float]]  # scores by a setting's value and seed


def main() -> None:
    """Write the tables."""
    update(README, tables())


def tables() -> dict[str, list[str]]:
    """Every table of the README, by its mark."""
    ours = {"first": first_table(), "methods": methods_table(), "digits": digits_table(read_costs())}
    return ours | readme_tables()


def first_table() -> list[str]:
    """What a learned follower buys and costs: each follower where the setting that one has to tune suits it best and
    where it suits it least, of all values that both were run with; and beside PGD-10."""
    speeds = measured(RESULTS / "gail" / "throughput_20.json", "steps_per_second")
    seconds = measured(RESULTS / "at" / "cost.json", "seconds_a_step")
    games = (
        ("imitation", "discriminator rates", "Adam", "", imitation, ratios(speeds, "gail", "l2l-gail")),
        ("robust digits", "step sizes", "nothing learned", " ε", defence, ratios(seconds, "l2l", "frozen")),
    )
    heads = ["task", "baseline", "its result, %", "L2L's result, %", "difference (Welch's 95 % interval)"]
    heads.append("L2L's cost over the baseline's (95 % bootstrap interval over turns)")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for game, setting, who, unit, scores, cost in games:
        ours, theirs = scores("l2l"), scores("adam" if who == "Adam" else "frozen")
        for name, of in (("worst", min), ("best", max)):
            one, two = choose(theirs, of), choose(ours, of)
            cells = [f"{game}, {name} of {len(theirs)} {setting}", who, cell(theirs, one, unit), cell(ours, two, unit)]
            lines.append(row([*cells, gap(ours[two], theirs[one])], cost))
    usual = f"{DEFAULT_SIZE:g}"
    ours = {"": defence("l2l")[usual]}
    for who, name in (("nothing learned", "frozen"), ("PGD-10", "pgd")):
        theirs = {"": defence(name)[usual]}
        cells = ["robust digits, settings as they ship", who, cell(theirs, "", ""), cell(ours, "", "")]
        lines.append(row([*cells, gap(ours[""], theirs[""])], ratios(seconds, "l2l", name)))
    return lines


def row(cells: list[str], cost: list[float]) -> str:
    """A line of the table; `cost` is a ratio in several turns."""
    low, high = bootstrap_interval([cost], np.median)
    return "| " + " | ".join([*cells, f"{np.median(cost):.2f} ({low:.2f} to {high:.2f}, n = {len(cost)})"]) + " |"


def measured(path: Path, unit: str) -> dict[str, list[float]]:
    """What a benchmark measured in turns, by name."""
    return json.loads(path.read_text())[unit]


def imitation(follower: str) -> ByValue:
    """Percent of the demonstrations' return on HalfCheetah with one demonstration, by the discriminator's rate."""
    found = sensitivity.collect(swept())
    rates, _ = sensitivity.comparable(found, ONE_PENALISED)
    by_rate = sensitivity.of(found, follower, ONE_PENALISED)
    return {sensitivity.rate_name(rate): {s: o.percent for s, o in by_rate[rate].items()} for rate in rates}


def defence(name: str) -> ByValue:
    """Percent of the test images that withstand AutoAttack's first two attacks, which every run was graded with, by
    the attacker's step size over the radius."""
    found: ByValue = defaultdict(dict)
    for run in (defences("digits") | defences("frozen") | defences("step-length")).values():
        settings: dict[str, Any] = run["settings"]
        who = "frozen" if settings["freeze_attacker"] else settings["method"]
        if (who, settings["eps"]) == (name, EPS):
            found[f"{float(settings['attack_size'] or DEFAULT_SIZE):g}"][settings["seed"]] = after_both(run)
    return found


def choose(values: ByValue, of: Callable[..., str]) -> str:
    """The value with the lowest or highest mean score."""
    return of(values, key=lambda value: np.mean([*values[value].values()]))


def cell(values: ByValue, value: str, unit: str) -> str:
    """Mean and where it is, lowest and highest, number of runs."""
    scores = [*values[value].values()]
    where = f" at {value}{unit}" if value else ""
    return f"{np.mean(scores):.1f}{where} ({min(scores):.1f} to {max(scores):.1f}, n = {len(scores)})"


def gap(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """Difference of the means over all seeds, and Welch's interval: the two need not have the same setting or seeds."""
    ours, theirs = [*ours.values()], [*theirs.values()]
    low, high = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    return f"{np.mean(ours) - np.mean(theirs):+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    tyro.cli(main)
