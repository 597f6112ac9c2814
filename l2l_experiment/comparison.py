"""Runs beside each other: their curves, what can be said of each group's reliability, and which group is better.

Reliability after Chan et al. (2020), interquartile means, intervals and probability of improvement after Agarwal et al.
(2021); the single figures are those of `l2l_experiment.stability`.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from l2l_experiment import events
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping
from l2l_experiment.stability import (
    GRID_POINTS,
    bootstrap_interval,
    dispersion_across_runs,
    interquartile_mean,
    on_grid,
    risk_across_runs,
    summarise,
)

# The return (Stable-Baselines3's and ours, then the package imitation's), and that of adversarial training.
TAGS = ("rollout/ep_rew_mean", "raw/gen/rollout/ep_rew_mean", "robust/pgd10")
SEED = re.compile(r"(^|_)s\d+(_\d{8}-\d{6}(-\d+)?)?$")  # the end of a run's name that tells it from its group's others
FIGURES = ("final", "best", "largest_fall", "drawdown_cvar", "dispersion", "short_term_risk")
TASK = ("env", "dataset", "norm", "eps")  # settings between which returns and accuracies are not on one scale
FREE = {"seed", "run_dir", "resume", "device", "threads"}  # in which runs of one group may differ
RUNS_FOR_INTERVAL = 3


@dataclass(frozen=True)
class Curve:
    """One run's curve, by rising steps."""

    name: str
    group: str
    """What is compared with other groups of the same task."""
    tag: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    hours: NDArray[np.float64]
    """Of training until each value, NaN where nothing says so."""
    task: str = ""
    """Environment, or data set and threat model; empty for folders of other tools."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of a run of ours, for telling what a group mixes."""
    doubled: int = 0
    """Steps for which several values were logged, of which the last counts."""

    @property
    def label(self) -> str:
        """Task and group."""
        return f"{self.task}: {self.group}" if self.task else self.group


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval over runs; the interval is None where there are fewer than three."""

    value: float
    low: float | None
    high: float | None


def read(folder: Path, *, tag: str | None = None, by: Sequence[str] = (), unfinished: bool = False) -> Curve:
    """The curve of a run, ours or any folder with TensorBoard events.

    Ours are read from metrics.jsonl, others from their event files; of doubled steps the later value counts. Without
    `tag` the first of `TAGS` that is there is taken. The group is what the settings named in `by` say (config.yaml), or
    the folder's name without seed and time at its end, or that of the folder it lies in if nothing is left. UserError
    if there is nothing to read, and for a run of ours that is not finished and for logs that are cut off or damaged,
    unless `unfinished`.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder of a run")
    ours = _is_ours(folder)
    if ours and not unfinished:
        record = folder / "record.json"
        status = read_mapping(record).get("status") if record.is_file() else "without record.json"
        if status != "finished":
            raise UserError(f"{folder} is {status}, not finished; resume it, or add --unfinished")
    settings = _settings(folder) if ours else {}
    task = ", ".join(str(settings[name]) for name in TASK if name in settings)
    for candidate in (tag,) if tag else TAGS:
        steps, values, hours, doubled = _points(folder, candidate, ours, unfinished)
        if len(steps) > 1:
            group = _group(folder, by, settings)
            return Curve(str(folder), group, candidate, steps, values, hours, task, settings, doubled)
    wanted = tag or " or ".join(TAGS)
    raise UserError(f"{folder} holds fewer than two values of {wanted}; name another --tag, or leave the run out")


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a run of this project: other tools leave files of the same names, with other contents."""
    if (folder / "record.json").is_file():
        return "kind" in read_mapping(folder / "record.json")
    config = folder / "config.yaml"
    return (folder / events.METRICS).is_file() and config.is_file() and b"settings:" in config.read_bytes()


def _points(
    folder: Path, tag: str, ours: bool, unfinished: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """Steps, values and hours of a curve, without what is not finite, and how many steps were logged again."""
    if ours and (folder / events.METRICS).is_file():
        rows = events.read(folder / events.METRICS)
        finite = [
            (float(row["step"]), row[tag], hours)
            for row, hours in zip(rows, _hours(rows), strict=True)
            if np.isfinite(row.get(tag, np.nan))
        ]
        points = {step: (value, hours) for step, value, hours in finite}
        steps = sorted(points)
        values, hours = (np.array([points[step][part] for step in steps]) for part in (0, 1))
        return np.array(steps), values, hours, len(finite) - len(points)
    steps, values, seconds, doubled = events.read_timed(folder, tag, whole=not unfinished)
    finite = np.isfinite(values)
    return steps[finite].astype(np.float64), values[finite], seconds[finite] / 3600, doubled


def _hours(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Hours of training at each row. A clock that starts anew is that of a resumed run: it goes on from there."""
    before = last = 0.0
    found = []
    for row in rows:
        now = row.get(events.SECONDS, np.nan)
        if now < last:
            before += last
        last = now if np.isfinite(now) else last
        found.append((before + now) / 3600)
    return found


def _settings(folder: Path) -> dict[str, Any]:
    """What config.yaml says, in one level."""
    if not (folder / "config.yaml").is_file():
        return {}
    content = read_mapping(folder / "config.yaml")
    settings = content.pop("settings", None)
    found = {**content, **(settings if isinstance(settings, dict) else {})}
    return {str(name): value for name, value in found.items()}


def _group(folder: Path, by: Sequence[str], known: Mapping[str, Any]) -> str:
    if not by or not known:
        return SEED.sub("", folder.name) or folder.resolve().parent.name
    if missing := [name for name in by if name not in known]:
        raise UserError(
            f"--by {missing[0]}: {folder}/config.yaml has no such setting; it has {', '.join(sorted(known))}"
        )
    return ", ".join(str(known[name]) if isinstance(known[name], str) else f"{name} {known[name]}" for name in by)


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


def mixed(curves: Sequence[Curve]) -> list[str]:
    """Settings other than the seed in which runs of one group differ."""
    names = {name for curve in curves for name in curve.settings} - FREE
    kinds = {name: {repr(curve.settings.get(name)) for curve in curves} for name in names}
    return sorted(name for name, values in kinds.items() if len(values) > 1)


def shared_grid(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Even steps over the stretch that every curve covers; UserError if there is none."""
    first = max(curve.steps[0] for curve in curves)
    last = min(curve.steps[-1] for curve in curves)
    if last <= first:
        raise UserError(f"the runs share no stretch of steps: one begins at {first:.0f}, another ends at {last:.0f}")
    return np.linspace(first, last, GRID_POINTS)


def within(curve: Curve, grid: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the grid's stretch alone: as measured, and at its two ends as interpolated, so that every run
    begins and ends at the same step."""
    ends = np.asarray(grid, dtype=np.float64)[[0, -1]]
    inside = (curve.steps > ends[0]) & (curve.steps < ends[1])
    first, last = on_grid(curve.steps, curve.values, ends)
    return np.array([ends[0], *curve.steps[inside], ends[1]]), np.array([first, *curve.values[inside], last])


def reliability(curves: Sequence[Curve], grid: ArrayLike) -> dict[str, Estimate]:
    """Of one group, on the stretch that all groups' runs cover: interquartile mean over runs of each single-run figure,
    and two figures of the runs together.

    `dispersion_across_runs` is the interquartile range over runs, mean over the grid; `risk_across_runs` the mean of
    the worst 5 % of final values, which is the worst run where there are fewer than twenty.
    """
    resampled = np.stack([on_grid(curve.steps, curve.values, grid) for curve in curves])
    rows = [summarise(*within(curve, grid), np.asarray(grid)) for curve in curves]
    found = {name: estimate([row[name] for row in rows], interquartile_mean) for name in FIGURES}
    if len(curves) > 1:
        found["dispersion_across_runs"] = estimate(resampled, lambda drawn: float(dispersion_across_runs(drawn).mean()))
    found["risk_across_runs"] = estimate([row["final"] for row in rows], risk_across_runs)
    return found


def estimate(values: ArrayLike, statistic: Any) -> Estimate:
    """A statistic over runs (the first dimension) with its bootstrap interval."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < RUNS_FOR_INTERVAL:
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


def improvements(groups: Mapping[str, Sequence[Curve]], grid: ArrayLike) -> dict[str, Estimate]:
    """The probability of improvement for each pair of groups on each task, and over all tasks that both have."""
    finals: dict[str, dict[str, list[float]]] = {}  # by group and task
    for curves in groups.values():
        for curve in curves:
            finals.setdefault(curve.group, {}).setdefault(curve.task, []).append(final(curve, grid))
    several = len({curve.task for curves in groups.values() for curve in curves}) > 1
    found = {}
    for a, b in itertools.combinations(sorted(finals), 2):
        shared = sorted(finals[a].keys() & finals[b].keys())
        pairs = [(finals[a][task], finals[b][task]) for task in shared]
        for task, pair in zip(shared, pairs, strict=True) if several else ():
            found[f"{task}: {a} over {b}"] = probability_of_improvement([pair])
        if pairs:
            found[f"{a} over {b}" + f", mean of {len(pairs)} tasks" * several] = probability_of_improvement(pairs)
    return found


def final(curve: Curve, grid: ArrayLike) -> float:
    """The value at the grid's last step."""
    return float(within(curve, grid)[1][-1])


def table(groups: Mapping[str, Sequence[Curve]], grid: ArrayLike) -> dict[str, Any]:
    """Everything that is said of the groups, as plain values for JSON."""
    everyone = [curve for curves in groups.values() for curve in curves]
    ends = {curve.name: curve.steps[-1] for curve in everyone}
    first = min(ends, key=ends.__getitem__)
    return {
        "steps": [float(step) for step in np.asarray(grid)[[0, -1]]],
        "ends_first": first if ends[first] < 0.99 * max(ends.values()) else None,
        "groups": {
            name: {
                "n": len(curves),
                "runs": {curve.name: final(curve, grid) for curve in curves},
                "worst": min((final(curve, grid), curve.name) for curve in curves)[1],
                "mixes": mixed(curves),
                "figures": {key: list(value) for key, value in reliability(curves, grid).items()},
            }
            for name, curves in groups.items()
        },
        "improvement": {pair: list(value) for pair, value in improvements(groups, grid).items()},
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    keys = [*FIGURES, "dispersion_across_runs", "risk_across_runs"]
    head = ["group", "n", *(key.replace("_", " ") for key in keys), "worst run"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in content["groups"].items():
        cells = [_cell(row["figures"][key]) if key in row["figures"] else "–" for key in keys]
        lines.append("| " + " | ".join([name, str(row["n"]), *cells, row["worst"]]) + " |")
    if content["improvement"]:
        lines += ["", "| a run of | ends higher with probability |", "|---|---|"]
        lines += [f"| {pair} | {_cell(value)} |" for pair, value in content["improvement"].items()]
    first, last = content["steps"]
    end = f" ({content['ends_first']} ends first)" if content["ends_first"] else ""
    lines += [
        "",
        f"Steps {first:,.0f} to {last:,.0f}, which all runs cover{end}. Interquartile means over runs (the last two "
        "figures are of all runs together); in brackets 95 % bootstrap intervals, from three runs on. They know the "
        "runs that were made and no others: with fewer than ten they are too narrow, and a probability of 1 [1, 1] "
        "only says that these runs do not overlap.",
    ]
    for name, row in content["groups"].items():
        if row["mixes"]:
            lines += ["", f"**{name}** mixes runs that differ in {', '.join(row['mixes'])}: see `--by`."]
    return "\n".join(lines) + "\n"


def _cell(value: Sequence[float | None]) -> str:
    middle, low, high = value
    return f"{middle:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")
