"""Reliability of the followers over sets of runs, with intervals: the figures of `l2l_experiment.comparison`, from
records instead of folders."""

import itertools
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from gail_tables import FOLLOWERS, NAMED, demonstrations, recorded, swept, version
from sensitivity import RETURN, rate_name

from l2l_experiment.comparison import Estimate, probability_of_improvement
from l2l_experiment.stability import (
    RUNS_FOR_INTERVAL,
    bootstrap_interval,
    dispersion_across_runs,
    interquartile_mean,
    summarise,
)

FIGURES = ("final", "largest_fall", "late_fall", "drawdown_cvar", "dispersion", "short_term_risk")
Curves = dict[str, dict[str, list[np.ndarray]]]  # training returns, (2, n) steps and values, by task and follower


def sets() -> dict[str, Curves]:
    """Followers as they ship, by what the runs of a set have in common and then by task."""
    found: dict[str, Curves] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    runs = [*recorded("main").values(), *recorded("tasks").values(), *swept(), *recorded("boundary").values()]
    for run in runs:
        settings = run["settings"]
        if settings["follower"] not in FOLLOWERS or version(settings) not in FOLLOWERS or not run["curves"]:
            continue
        words = [settings["env"], demonstrations(settings["num_demos"]), f"GP {settings['gradient_penalty']:g}"]
        words += [f"{settings['disc_updates']} D steps", f"{settings['steps'] / 1e6:g}M"]
        points = [
            (step, value) for step, value in zip(run["grid"], run["curves"][RETURN], strict=True) if value is not None
        ]
        task = rate_name(settings["disc_rate"])
        found[", ".join(words)][task][settings["follower"]].append(np.array(points, dtype=np.float64).T)
    return {name: of for name, of in found.items() if both(of)}


def both(of: Curves) -> list[str]:
    """The tasks for which there are runs of both followers."""
    return [task for task, curves in of.items() if all(curves[who] for who in FOLLOWERS)]


def reliability(curves: Iterable[list[np.ndarray]]) -> dict[str, Estimate]:
    """Interquartile mean of each figure over all runs of all tasks, with an interval that draws within the tasks, and
    what the runs of a task have together, mean over tasks."""
    by_task = list(curves)
    grids = [np.linspace(max(c[0][0] for c in some), min(c[0][-1] for c in some), 100) for some in by_task]
    rows = [[summarise(*c, grid) for c in some] for some, grid in zip(by_task, grids, strict=True)]
    found = {}
    for name in FIGURES:
        values = [[row[name] for row in some if np.isfinite(row[name])] for some in rows]
        values = [some for some in values if some]
        few = not values or min(map(len, values)) < RUNS_FOR_INTERVAL
        low, high = (None, None) if few else bootstrap_interval(values)
        found[name] = Estimate(interquartile_mean(list(itertools.chain(*values))) if values else np.nan, low, high)
    several = [
        float(dispersion_across_runs([np.interp(grid, *c) for c in some]).mean())
        for some, grid in zip(by_task, grids, strict=True)
        if len(some) > 1
    ]
    found["dispersion_across_runs"] = Estimate(float(np.mean(several)) if several else np.nan, None, None)
    found["worst"] = Estimate(min(row["final"] for row in itertools.chain(*rows)), None, None)
    return found


def table() -> list[str]:
    """A row for each set of runs and follower, and how probable it is that a run of L2L ends higher."""
    names = ["final", "largest fall", "late fall", "drawdown, CVaR", "dispersion in time", "short-term risk"]
    heads = ["runs", "follower", "n", *names, "dispersion over runs", "worst final"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    ends = ["| runs | tasks | a run of L2L ends higher than one of Adam's with probability |", "|---|---|---|"]
    for name, of in sets().items():
        tasks = both(of)
        for who, title, _ in NAMED:
            found = reliability(of[task][who] for task in tasks)
            count = sum(len(of[task][who]) for task in tasks)
            over = f" over {len(tasks)} rates" * (len(tasks) > 1)
            lines.append("| " + " | ".join([name, title, f"{count}{over}", *map(cell, found.values())]) + " |")
        pairs = [tuple([curve[1][-1] for curve in of[task][who]] for who in ("l2l", "adam")) for task in tasks]
        ends.append(f"| {name} | {len(tasks)} | {cell(probability_of_improvement(pairs), 2)} |")
    return [*lines, "", *ends]


def cell(value: Estimate, digits: int = 0) -> str:
    """Value and interval; a dash where there is none."""
    if np.isnan(value.value):
        return "–"
    reach = "" if value.low is None else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return f"{value.value:.{digits}f}{reach}"
