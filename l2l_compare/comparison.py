"""Runs beside each other: their curves, what can be said of each group's reliability, and which group is better.

Reliability after Chan et al. (2020), interquartile means, intervals and probability of improvement after Agarwal et al.
(2021); the single figures are those of `l2l_experiment.stability`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from l2l_compare.curves import PROBE, TAGS, Curve
from l2l_experiment.errors import UserError
from l2l_experiment.stability import (
    ALPHA,
    GRID_POINTS,
    RUNS_FOR_INTERVAL,
    bootstrap_interval,
    dispersion_across_runs,
    interquartile_mean,
    on_grid,
    risk_across_runs,
    summarise,
)

FIGURES = ("final", "best", "average", "largest_fall", "late_fall", "drawdown_cvar", "dispersion", "short_term_risk")
# What is drawn from few runs is never further apart, or worse, than these are: no interval tells how wrong that is.
RUNS_FOR_SPREAD = 5
RUNS_FOR_RISK = round(1 / ALPHA) + 1  # with fewer the mean of the worst 5 % is the worst run
FREE = {"seed", "run_dir", "resume", "device", "threads"}  # in which runs of one group may differ


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval over runs; the interval is None where there are too few."""

    value: float
    low: float | None
    high: float | None


def grouped(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves by group, groups and runs in the order of their names. Runs of several tasks are kept apart: a group is
    then the runs of one task, and has its name in front."""
    several = len({curve.task for curve in curves}) > 1
    found: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=lambda c: (c.task, c.group, c.name)):
        found.setdefault(curve.label if several else curve.group, []).append(curve)
    return found


def of_one_task(curves: Sequence[Curve]) -> list[Curve]:
    """Folders of other tools, which name no task, are taken to be of the others' task if there is just one."""
    tasks = {curve.task for curve in curves} - {""}
    return [replace(curve, task=curve.task or next(iter(tasks))) for curve in curves] if len(tasks) == 1 else [*curves]


def by_task(groups: Mapping[str, list[Curve]]) -> dict[str, dict[str, list[Curve]]]:
    """The groups of each task, which all runs of a group have in common, by task."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for name, curves in groups.items():
        found.setdefault(curves[0].task, {})[name] = curves
    return found


def mixed(curves: Sequence[Curve]) -> list[str]:
    """Settings other than the seed in which runs of one group differ."""
    names = {name for curve in curves for name in curve.settings} - FREE
    kinds = {name: {repr(curve.settings.get(name)) for curve in curves} for name in names}
    return sorted(name for name, values in kinds.items() if len(values) > 1)


def grids(groups: Mapping[str, Sequence[Curve]]) -> dict[str, NDArray[np.float64]]:
    """The grid on which each group is judged: that of all runs of its task."""
    found = {
        task: shared_grid([*itertools.chain.from_iterable(some.values())]) for task, some in by_task(groups).items()
    }
    return {name: found[curves[0].task] for name, curves in groups.items()}


def overlapping(curves: Sequence[Curve]) -> tuple[list[Curve], list[Curve]]:
    """The runs of each task that share a stretch of steps, and those that would leave none.

    As long as one begins where another has ended, that of the two is taken out which overlaps with fewer others, or
    else the shorter one.
    """
    kept, apart = [*curves], []
    for task in sorted({curve.task for curve in curves}):
        while runs := [curve for curve in kept if curve.task == task]:
            late, early = max(runs, key=lambda c: c.steps[0]), min(runs, key=lambda c: c.steps[-1])
            if late.steps[0] < early.steps[-1]:
                break
            gone = min(late, early, key=lambda c: (_overlaps(c, runs), c.steps[-1] - c.steps[0]))
            kept = [curve for curve in kept if curve is not gone]
            apart.append(gone)
    return kept, apart


def _overlaps(curve: Curve, curves: Sequence[Curve]) -> int:
    return sum(curve.steps[0] < other.steps[-1] and other.steps[0] < curve.steps[-1] for other in curves)


def shared_grid(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Even steps over the stretch that every curve covers; UserError if there is none.

    They are as many as the run with the fewest values has there, and 100 at the most: between two values a curve is a
    line, and more points on it would make a run that was measured seldom look steady.
    """
    first = max(curve.steps[0] for curve in curves)
    last = min(curve.steps[-1] for curve in curves)
    if last <= first:
        raise UserError(f"the runs share no stretch of steps: one begins at {first:.0f}, another ends at {last:.0f}")
    fewest = min(np.count_nonzero((curve.steps > first) & (curve.steps < last)) for curve in curves)
    return np.linspace(first, last, min(GRID_POINTS, 2 + fewest))


def within(curve: Curve, grid: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the grid's stretch alone: as measured, and at its two ends as interpolated, so that every run
    begins and ends at the same step."""
    ends = np.asarray(grid, dtype=np.float64)[[0, -1]]
    inside = (curve.steps > ends[0]) & (curve.steps < ends[1])
    first, last = on_grid(curve.steps, curve.values, ends)
    return np.array([ends[0], *curve.steps[inside], ends[1]]), np.array([first, *curve.values[inside], last])


def reliability(curves: Sequence[Curve], grid: ArrayLike) -> dict[str, Estimate]:
    """Of one group, on the stretch that all runs of its task cover: interquartile mean over runs of each single-run
    figure, of those that have it, and two figures of the runs together; what a grid of two points cannot tell is left
    out.

    `dispersion_across_runs` is the interquartile range over runs, mean over the grid; `risk_across_runs` the mean of
    the worst 5 % of final values, which is the worst run where there are fewer than twenty.
    """
    resampled = np.stack([on_grid(curve.steps, curve.values, grid) for curve in curves])
    rows = [summarise(*within(curve, grid), np.asarray(grid)) for curve in curves]
    # Of two points there is one difference, and no spread of differences.
    names = [name for name in FIGURES if name != "dispersion" or len(resampled[0]) > 2]
    known = {name: [row[name] for row in rows if np.isfinite(row[name])] for name in names}
    found = {name: estimate(values, interquartile_mean) for name, values in known.items() if values}
    if len(curves) > 1:
        spread = lambda drawn: float(dispersion_across_runs(drawn).mean())  # noqa: E731
        found["dispersion_across_runs"] = estimate(resampled, spread, at_least=RUNS_FOR_SPREAD)
    finals = [row["final"] for row in rows]
    found["risk_across_runs"] = estimate(finals, risk_across_runs, at_least=RUNS_FOR_RISK)
    return found


def estimate(values: ArrayLike, statistic: Any, *, at_least: int = RUNS_FOR_INTERVAL) -> Estimate:
    """A statistic over runs (the first dimension) with its bootstrap interval, from `at_least` runs on."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < at_least:
        return Estimate(float(statistic(array)), None, None)
    low, high = bootstrap_interval([array], statistic)
    return Estimate(float(statistic(array)), low, high)


def probability_of_improvement(tasks: Sequence[tuple[ArrayLike, ArrayLike]], n: int = 2000, seed: int = 0) -> Estimate:
    """How probable it is that a run of one group ends higher than one of another, `tasks` holding the values of both
    for each task: Mann and Whitney's U over its maximum, mean over tasks (Agarwal et al., 2021).

    The interval resamples the runs of both within each task (a stratified bootstrap).
    """
    pairs = [tuple(np.asarray(side, dtype=np.float64) for side in pair) for pair in tasks]

    def share(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean())

    value = float(np.mean([share(a, b) for a, b in pairs]))
    if min(len(side) for pair in pairs for side in pair) < RUNS_FOR_INTERVAL:
        return Estimate(value, None, None)
    generator = np.random.default_rng(seed)
    drawn = [
        np.mean([share(generator.choice(a, len(a)), generator.choice(b, len(b))) for a, b in pairs]) for _ in range(n)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def improvements(groups: Mapping[str, Sequence[Curve]], of: Mapping[str, ArrayLike]) -> dict[str, Estimate]:
    """The probability of improvement for each pair of groups on each task, and over all tasks that both have; `of` has
    the groups' grids."""
    finals: dict[str, dict[str, list[float]]] = {}  # by group and task
    for name, curves in groups.items():
        for curve in curves:
            finals.setdefault(curve.group, {}).setdefault(curve.task, []).append(final(curve, of[name]))
    several = len({curve.task for curves in groups.values() for curve in curves}) > 1
    found = {}
    for a, b in itertools.combinations(sorted(finals), 2):
        shared = sorted(finals[a].keys() & finals[b].keys())
        pairs = [(finals[a][task], finals[b][task]) for task in shared]
        for task, pair in zip(shared, pairs, strict=True) if several else ():
            found[f"{task}: {a} over {b}"] = probability_of_improvement([pair])
        if pairs:
            over_all = f"{a} over {b}" + f", mean of {len(pairs)} tasks" * several
            if len(pairs) > 1 or not several:  # of one task it has been told
                found[over_all] = probability_of_improvement(pairs)
    return found


def final(curve: Curve, grid: ArrayLike) -> float:
    """The value at the grid's last step."""
    return float(within(curve, grid)[1][-1])


def table(groups: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    """Everything that is said of the groups, as plain values for JSON."""
    of = grids(groups)
    stretches = {
        task: stretch([*itertools.chain.from_iterable(some.values())], of[next(iter(some))])
        for task, some in by_task(groups).items()
    }
    return {
        "tasks": stretches,
        "groups": {
            name: {
                "n": len(curves),
                "runs": {curve.name: final(curve, of[name]) for curve in curves},
                "worst": curves[worst(curves, of[name])].name,
                "mixes": mixed(curves),
                "figures": {key: list(value) for key, value in reliability(curves, of[name]).items()},
            }
            for name, curves in groups.items()
        },
        "improvement": {pair: list(value) for pair, value in improvements(groups, of).items()},
    }


def worst(curves: Sequence[Curve], grid: ArrayLike) -> int:
    """The place of the run that is lowest at the grid's last step."""
    return min(range(len(curves)), key=lambda place: (final(curves[place], grid), curves[place].name))


def stretch(curves: Sequence[Curve], grid: NDArray[np.float64]) -> dict[str, Any]:
    """On which steps the runs of a task are judged, and which run ends first, if others go on for longer."""
    ends = {curve.name: curve.steps[-1] for curve in curves}
    first = min(ends, key=ends.__getitem__)
    return {
        "steps": [float(grid[0]), float(grid[-1])],
        "points": len(grid),
        "ends_first": first if ends[first] < 0.99 * max(ends.values()) else None,
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    keys = [*FIGURES, "dispersion_across_runs", "risk_across_runs"]
    told = []
    if "tag" in content:
        probe = ", our own attack on held-out images: a probe, no grade" * (content["tag"] == PROBE)
        asked = ", of which more is taken to be better" * (content["tag"] not in TAGS)
        told = [f"Figure: `{content['tag']}`{probe}{asked}.", ""]
    head = ["group", "n", *(key.replace("_", " ") for key in keys), "worst run"]
    lines = [*told, "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in content["groups"].items():
        cells = [_cell(row["figures"][key]) if key in row["figures"] else "–" for key in keys]
        lines.append("| " + " | ".join([name, str(row["n"]), *cells, row["worst"]]) + " |")
    if content["improvement"]:
        lines += ["", "| a run of | ends higher with probability |", "|---|---|"]
        lines += [f"| {pair} | {_cell(value)} |" for pair, value in content["improvement"].items()]
    lines.append("")
    for task, found in content["tasks"].items():
        (first, last), of = found["steps"], f"{task}: steps" if len(content["tasks"]) > 1 else "Steps"
        end = f" ({found['ends_first']} ends first)" if found["ends_first"] else ""
        lines.append(
            f"{of} {first:,.0f} to {last:,.0f}, which all runs cover{end}; risks and dispersions are of "
            f"{found['points']} even steps."
        )
    lines += [
        "",
        "Interquartile means over runs (the last two figures are of all runs together, and the late fall is of those "
        "that rose); in brackets 95 % bootstrap intervals, from three runs on, of the spread across runs from "
        f"{RUNS_FOR_SPREAD} and of the risk from {RUNS_FOR_RISK}. They know the runs that were made and no others: "
        "with fewer than ten they are too narrow, that of the risk always, and a probability of 1 [1, 1] only says "
        "that these runs do not overlap. Few runs look closer together, and their worst less bad, than many: "
        "dispersion and risk across runs are for groups of equal n.",
    ]
    for name, row in content["groups"].items():
        if row["mixes"]:
            lines += ["", f"**{name}** mixes runs that differ in {', '.join(row['mixes'])}: see `--by`."]
    return "\n".join(lines) + "\n"


def _cell(value: Sequence[float | None]) -> str:
    middle, low, high = value
    return f"{middle:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")
