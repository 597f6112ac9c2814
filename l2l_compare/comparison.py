"""Runs beside each other: groups, the steps that all cover, and tables of figures with intervals."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from l2l_compare.curves import GRADING, PROBE, RETURNS, TAGS, Array, Curve
from l2l_compare.reliability import (
    RUN_METRICS,
    RUNS_FOR_INTERVAL,
    RUNS_FOR_RISK,
    RUNS_FOR_SPREAD,
    Estimate,
    group_metrics,
    probability_of_improvement,
)
from l2l_experiment.errors import UserError
from l2l_experiment.settings import BOOKKEEPING
from l2l_experiment.stability import GRID_POINTS, NEAR_EXPERT, first_reached, near_expert_return, on_grid, summarise

IGNORED_SETTINGS = BOOKKEEPING | {"seed", "resume"}  # in which runs of one group may differ


def grouped(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves by group, groups and runs in the order of their names. Runs of several tasks are kept apart: a group is
    then the runs of one task, and has its name in front."""
    several = len({curve.task for curve in curves}) > 1
    found: dict[str, list[Curve]] = {}
    for curve in sorted(curves, key=lambda c: (c.task, c.group, c.name)):
        found.setdefault(curve.label if several else curve.group, []).append(curve)
    return found


def fill_in_task(curves: Sequence[Curve]) -> list[Curve]:
    """Folders of other tools, which name no task, are taken to be of the others' task if there is just one."""
    tasks = {curve.task for curve in curves} - {""}
    return [replace(curve, task=curve.task or next(iter(tasks))) for curve in curves] if len(tasks) == 1 else [*curves]


def by_task(groups: Mapping[str, list[Curve]]) -> dict[str, dict[str, list[Curve]]]:
    """The groups of each task, which all runs of a group have in common, by task."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for name, curves in groups.items():
        found.setdefault(curves[0].task, {})[name] = curves
    return found


def differing_settings(curves: Sequence[Curve]) -> list[str]:
    """Settings other than the seed in which runs of one group differ."""
    names = {name for curve in curves for name in curve.settings} - IGNORED_SETTINGS
    kinds = {name: {repr(curve.settings.get(name)) for curve in curves} for name in names}
    return sorted(name for name, values in kinds.items() if len(values) > 1)


def grids(groups: Mapping[str, Sequence[Curve]]) -> dict[str, Array]:
    """The grid on which each group is judged: that of all runs of its task."""
    found = {task: shared_grid([*itertools.chain(*some.values())]) for task, some in by_task(groups).items()}
    return {name: found[curves[0].task] for name, curves in groups.items()}


def overlapping(curves: Sequence[Curve]) -> tuple[list[Curve], list[Curve]]:
    """The runs of each task that share a stretch of steps, and those that would leave none.

    As long as one begins where another has ended, that of the two is taken out which overlaps with fewer others, or
    else the shorter one."""

    def overlaps(curve: Curve, others: Sequence[Curve]) -> int:
        return sum(curve.steps[0] < other.steps[-1] and other.steps[0] < curve.steps[-1] for other in others)

    kept, apart = [*curves], []
    for task in sorted({curve.task for curve in curves}):
        while runs := [curve for curve in kept if curve.task == task]:
            late, early = max(runs, key=lambda c: c.steps[0]), min(runs, key=lambda c: c.steps[-1])
            if late.steps[0] < early.steps[-1]:
                break
            gone = min(late, early, key=lambda c: (overlaps(c, runs), c.steps[-1] - c.steps[0]))
            kept = [curve for curve in kept if curve is not gone]
            apart.append(gone)
    return kept, apart


def shared_grid(curves: Sequence[Curve]) -> Array:
    """Even steps over the stretch that every curve covers; UserError if there is none.

    They are as many as the run with the fewest values has there, and 100 at the most: between two values a curve is a
    line, and more points on it would make a run that was measured rarely look steady."""
    first = max(curve.steps[0] for curve in curves)
    last = min(curve.steps[-1] for curve in curves)
    if last <= first:
        raise UserError(f"the runs share no stretch of steps: one begins at {first:.0f}, another ends at {last:.0f}")
    fewest = min(np.count_nonzero((curve.steps > first) & (curve.steps < last)) for curve in curves)
    return np.linspace(first, last, min(GRID_POINTS, 2 + fewest))


def restrict_to_grid(curve: Curve, grid: ArrayLike) -> tuple[Array, Array]:
    """Steps and values of the grid's stretch alone: as measured, and at its two ends as interpolated, so that every run
    begins and ends at the same step."""
    ends = np.asarray(grid, dtype=np.float64)[[0, -1]]
    inside = (curve.steps > ends[0]) & (curve.steps < ends[1])
    first, last = on_grid(curve.steps, curve.values, ends)
    return np.array([ends[0], *curve.steps[inside], ends[1]]), np.array([first, *curve.values[inside], last])


def reliability(curves: Sequence[Curve], grid: ArrayLike) -> dict[str, Estimate]:
    """The figures of one group (`reliability.group_metrics`), on the stretch that all runs of its task cover."""
    rows = [summarise(*restrict_to_grid(curve, grid), np.asarray(grid)) for curve in curves]
    return group_metrics(rows, [on_grid(curve.steps, curve.values, grid) for curve in curves])


def improvements(groups: Mapping[str, Sequence[Curve]], of: Mapping[str, ArrayLike]) -> dict[str, Estimate]:
    """The probability of improvement for each pair of groups on each task, and over all tasks that both have; `of` has
    the groups' grids."""
    finals: dict[str, dict[str, list[float]]] = {}  # by group and task
    for name, curves in groups.items():
        finals.setdefault(curves[0].group, {})[curves[0].task] = [final(curve, of[name]) for curve in curves]
    several = len(by_task(groups)) > 1
    found = {}
    for a, b in itertools.combinations(sorted(finals), 2):
        pairs = {task: (finals[a][task], finals[b][task]) for task in sorted(finals[a].keys() & finals[b].keys())}
        pairs = {task: pair for task, pair in pairs.items() if min(map(len, pair)) >= RUNS_FOR_INTERVAL}
        if several:
            found |= {f"{task}: {a} over {b}": probability_of_improvement([pair]) for task, pair in pairs.items()}
        if len(pairs) > several:  # of one task among several it has been told
            over_all = f"{a} over {b}" + f", mean of {len(pairs)} tasks" * several
            found[over_all] = probability_of_improvement(pairs.values())
    return found


def final(curve: Curve, grid: ArrayLike) -> float:
    """The value at the grid's last step."""
    return float(restrict_to_grid(curve, grid)[1][-1])


def levels(groups: Mapping[str, Sequence[Curve]], asked: float | None = None) -> dict[str, float]:
    """The level that runs of each task should reach: as asked, or `stability.near_expert_return` of the demonstrations
    where the figure is a return and the runs agree on the demonstrations; without either a task has none."""
    found = {}
    for task, some in by_task(groups).items():
        members = [*itertools.chain(*some.values())]
        known = references(members) if members[0].tag in RETURNS else {}
        level = near_expert_return(known.get("demonstrations"), known.get("random policy")) if asked is None else asked
        if level is not None:
            found[task] = level
    return found


def tasks_with_different_demonstrations(groups: Mapping[str, Sequence[Curve]]) -> list[str]:
    """Tasks whose runs tell returns of their demonstrations, but not the same."""
    found = []
    for task, some in by_task(groups).items():
        means = {(curve.result.get("expert") or {}).get("mean") for curve in itertools.chain(*some.values())} - {None}
        found += [task or "all runs"] * (len(means) > 1)
    return found


def reached(curves: Sequence[Curve], grid: ArrayLike, level: float) -> dict[str, float | None]:
    """When the runs of a group first reach a level, up to the grid's end: how many of them do, and the median of their
    steps and of their minutes of training, in which a run that never does counts as infinite. None if that is not
    finite, or if a run that does says no hours."""
    steps, minutes = np.full((2, len(curves)), np.inf)
    for place, curve in enumerate(curves):
        inside = curve.steps <= np.asarray(grid)[-1]
        first = first_reached(curve.steps[inside], curve.values[inside], level) if inside.any() else np.nan
        if np.isfinite(first):
            steps[place], minutes[place] = first, 60 * np.interp(first, curve.steps, curve.hours)
    found: dict[str, float | None] = {"runs": int(np.isfinite(steps).sum())}
    for name, middle in (("steps", np.median(steps)), ("minutes", np.median(minutes))):
        found[name] = float(middle) if np.isfinite(middle) else None
    return found


def table(groups: Mapping[str, Sequence[Curve]], *, level: float | None = None) -> dict[str, Any]:
    """Everything that is said of the groups, as plain values for JSON; `level`: see `levels`."""
    of, to = grids(groups), levels(groups, level)
    tasks = {}
    for task, some in by_task(groups).items():
        grid = of[next(iter(some))]
        ends = {curve.name: curve.steps[-1] for curve in itertools.chain(*some.values())}
        first = min(ends, key=ends.__getitem__)
        first = first if ends[first] < 0.99 * max(ends.values()) else None  # the others go on for longer
        tasks[task] = {"steps": [float(grid[0]), float(grid[-1])], "points": len(grid), "ends_first": first}
    found = {
        name: {
            "n": len(curves),
            "runs": {curve.name: final(curve, of[name]) for curve in curves},
            "worst": curves[worst(curves, of[name])].name,
            "mixes": differing_settings(curves),
            "evaluated": evaluated(curves),
            "reached": reached(curves, of[name], to[curves[0].task]) if curves[0].task in to else None,
            "figures": {key: list(value) for key, value in reliability(curves, of[name]).items()},
        }
        for name, curves in groups.items()
    }
    improvement = {pair: list(value) for pair, value in improvements(groups, of).items()}
    return {"tasks": tasks, "groups": found, "improvement": improvement, "level": level, "levels": to}


def evaluated(curves: Sequence[Curve]) -> dict[str, float]:
    """Means over a group's runs of what their records say of the end: the deterministic policy's return, its percent of
    the demonstrations', and the robust accuracy of a grade, in percent; each only if every run has it, a grade only if
    all were made alike."""
    found: dict[str, list[float]] = {}
    alike = len({grading_of(curve) for curve in curves}) == 1
    for curve in curves:
        grade = (curve.result.get("grade") or {}) if alike else {}
        values = {"percent of expert": curve.result.get("percent_of_expert")}
        values["deterministic return"] = (curve.result.get("return") or {}).get("mean")
        values["AutoAttack %"] = 100 * grade["autoattack"] if "autoattack" in grade else None
        for name, value in values.items():
            found.setdefault(name, []).extend([] if value is None else [float(value)])
    order = ("deterministic return", "percent of expert", "AutoAttack %")
    return {name: float(np.mean(found[name])) for name in order if len(found.get(name, ())) == len(curves)}


def grading_of(curve: Curve) -> tuple[Any, ...]:
    """How a run was graded, by `GRADING`."""
    grade = curve.result.get("grade") or {}
    return tuple(grade.get(name) for name in GRADING)


def references(curves: Sequence[Curve]) -> dict[str, float]:
    """The returns of demonstrations and of a random policy, where runs of imitation that tell them agree."""
    found = {}
    for name, title in (("expert", "demonstrations"), ("random", "random policy")):
        means = {(curve.result.get(name) or {}).get("mean") for curve in curves} - {None}
        if len(means) == 1 and np.isfinite(mean := means.pop()):
            found[title] = float(mean)
    return found


def _record_columns(content: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Columns of what the runs' records say of their ends, as far as any group has them: heads, and cells by group."""
    heads = list(dict.fromkeys(name for row in content["groups"].values() for name in row["evaluated"]))
    rows = {name: row["evaluated"] for name, row in content["groups"].items()}
    cells = {name: [f"{row[key]:.4g}" if key in row else "–" for key in heads] for name, row in rows.items()}
    if content["levels"]:
        to = f"{100 * NEAR_EXPERT:g} % of expert" if content["level"] is None else f"{content['level']:g}"
        heads += [f"steps to {to}", "minutes"]
        for name, row in content["groups"].items():
            cells[name] += _first_reached_cells(row["reached"], row["n"])
    return heads, cells


def _format_levels(levels: Mapping[str, float]) -> str:
    """The level, or those of several tasks."""
    if len(set(levels.values())) == 1:
        return f"{next(iter(levels.values())):.4g}"
    return ", ".join(f"{level:.4g} ({task})" for task, level in levels.items())


def _first_reached_cells(found: Mapping[str, float | None] | None, n: int) -> list[str]:
    """When a group first reaches the level: steps and minutes, with the number of runs that do if not all do."""
    if found is None:
        return ["–", "–"]
    some = "" if found["runs"] == n else f" ({found['runs']} of {n} runs)"
    steps, minutes = found["steps"], found["minutes"]
    return [("–" if steps is None else f"{steps:,.0f}") + some, "–" if minutes is None else f"{minutes:.3g}"]


def terminal_table(content: Mapping[str, Any]) -> str:
    """A short table for the terminal: a line a group."""
    heads, ends = _record_columns(content)
    rows = [["group", "runs", "final", "largest fall", *heads]]
    for name, row in content["groups"].items():
        cells = [_cell(row["figures"][key]) if key in row["figures"] else "–" for key in ("final", "largest_fall")]
        rows.append([name, str(row["n"]), *cells, *ends[name]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def worst(curves: Sequence[Curve], grid: ArrayLike) -> int:
    """The place of the run that is lowest at the grid's last step."""
    return min(range(len(curves)), key=lambda place: (final(curves[place], grid), curves[place].name))


def markdown(content: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    keys = [*RUN_METRICS, "dispersion_across_runs", "risk_across_runs"]
    told = []
    if "tag" in content:
        probe = ", our own attack on held-out images: a probe, no grade" * (content["tag"] == PROBE)
        asked = ", of which more is taken to be better" * (content["tag"] not in TAGS)
        told = [f"Figure: `{content['tag']}`{probe}{asked}.", ""]
    heads, ends = _record_columns(content)
    head = ["group", "n", *heads, *(key.replace("_", " ") for key in keys), "worst run"]
    lines = [*told, "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in content["groups"].items():
        cells = [_cell(row["figures"][key]) if key in row["figures"] else "–" for key in keys]
        lines.append("| " + " | ".join([name, str(row["n"]), *ends[name], *cells, row["worst"]]) + " |")
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
        "Interquartile means over runs; the late fall is of the runs that rose, the last two figures are of all runs "
        f"together. In brackets: 95 % bootstrap intervals, from {RUNS_FOR_INTERVAL} runs on ({RUNS_FOR_SPREAD} for the "
        f"dispersion across runs, {RUNS_FOR_RISK} for the risk); with fewer than ten runs they are too narrow. Compare "
        "dispersion and risk across runs between groups of equal n only.",
    ]
    if content["levels"]:
        lines += [
            "",
            f"First step, and minute of training, at which a run reaches {_format_levels(content['levels'])}: "
            "the median over runs; one that never does counts as infinite.",
        ]
    for name, row in content["groups"].items():
        if row["mixes"]:
            lines += ["", f"**{name}** mixes runs that differ in {', '.join(row['mixes'])}: see `--by`."]
    return "\n".join(lines) + "\n"


def _cell(value: Sequence[float | None]) -> str:
    middle, low, high = value
    return f"{middle:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")
