"""Runs beside each other: their curves, what can be said of each group's reliability, and which group is better.

Reliability after Chan et al. (2020), interquartile means, intervals and probability of improvement after Agarwal et al.
(2021); the single figures are those of `l2l_experiment.stability`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Curve:
    """One run's curve, by rising steps."""

    name: str
    group: str
    tag: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    hours: NDArray[np.float64]
    """Of training until each value, NaN where nothing says so."""


class Estimate(NamedTuple):
    """A figure with its 95 % bootstrap interval over runs; the interval is None where there is one run only."""

    value: float
    low: float | None
    high: float | None


def read(folder: Path, *, tag: str | None = None, by: Sequence[str] = (), unfinished: bool = False) -> Curve:
    """The curve of a run, ours or any folder with TensorBoard events.

    Ours are read from metrics.jsonl, others from their event files; of doubled steps the later value counts. Without
    `tag` the first of `TAGS` that is there is taken. The group is what the settings named in `by` say (config.yaml), or
    the folder's name without seed and time at its end, or that of the folder it lies in if nothing is left. UserError
    if there is nothing to read, and for a run of ours that was cut off, unless `unfinished`.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder of a run")
    record = folder / "record.json"
    status = read_mapping(record).get("status") if record.is_file() else "finished"
    if status != "finished" and not unfinished:
        raise UserError(f"{folder} is {status}, not finished; resume it, or add --unfinished")
    for candidate in (tag,) if tag else TAGS:
        steps, values, hours = _points(folder, candidate)
        if len(steps) > 1:
            return Curve(str(folder), _group(folder, by), candidate, steps, values, hours)
    wanted = tag or " or ".join(TAGS)
    raise UserError(f"{folder} holds fewer than two values of {wanted}; name another --tag, or leave the run out")


def _points(folder: Path, tag: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps, values and hours of a curve, without what is not finite."""
    if (folder / events.METRICS).is_file():
        rows = events.read(folder / events.METRICS)
        points = {
            float(row["step"]): (row[tag], hours)
            for row, hours in zip(rows, _hours(rows), strict=True)
            if np.isfinite(row.get(tag, np.nan))
        }
        steps = sorted(points)
        values, hours = (np.array([points[step][part] for step in steps]) for part in (0, 1))
        return np.array(steps), values, hours
    steps, values, seconds = events.read_timed(folder, tag)
    finite = np.isfinite(values)
    return steps[finite].astype(np.float64), values[finite], seconds[finite] / 3600


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


def _group(folder: Path, by: Sequence[str]) -> str:
    config = folder / "config.yaml"
    if not by or not config.is_file():
        return SEED.sub("", folder.name) or folder.resolve().parent.name
    content = read_mapping(config)
    settings = content.get("settings")
    known = {**content, **(settings if isinstance(settings, dict) else {})}
    if missing := [name for name in by if name not in known]:
        raise UserError(f"--by {missing[0]}: {config} has no such setting; it has {', '.join(sorted(known))}")
    return ", ".join(str(known[name]) if isinstance(known[name], str) else f"{name} {known[name]}" for name in by)


def grouped(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves by group, groups and runs in the order of their names."""
    names = sorted({curve.group for curve in curves})
    return {name: sorted((c for c in curves if c.group == name), key=lambda c: c.name) for name in names}


def shared_grid(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Even steps over the stretch that every curve covers; UserError if there is none."""
    first = max(curve.steps[0] for curve in curves)
    last = min(curve.steps[-1] for curve in curves)
    if last <= first:
        raise UserError(f"the runs share no stretch of steps: one begins at {first:.0f}, another ends at {last:.0f}")
    return np.linspace(first, last, GRID_POINTS)


def within(curve: Curve, grid: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values as measured, of the grid's stretch alone; on the grid itself if nothing was measured inside."""
    first, last = np.asarray(grid)[[0, -1]]
    inside = (curve.steps >= first) & (curve.steps <= last)
    if not inside.any():
        return np.asarray(grid), on_grid(curve.steps, curve.values, grid)
    return curve.steps[inside], curve.values[inside]


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
    if len(array) < 2:
        return Estimate(float(statistic(array)), None, None)
    low, high = bootstrap_interval([array], statistic)
    return Estimate(float(statistic(array)), low, high)


def probability_of_improvement(left: ArrayLike, right: ArrayLike, n: int = 2000, seed: int = 0) -> Estimate:
    """How probable it is that a run of `left` ends higher than one of `right` (Mann and Whitney's U over its maximum).

    The interval resamples the runs of both.
    """
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)

    def share(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean())

    if min(len(left), len(right)) < 2:
        return Estimate(share(left, right), None, None)
    generator = np.random.default_rng(seed)
    drawn = [share(generator.choice(left, len(left)), generator.choice(right, len(right))) for _ in range(n)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(share(left, right), float(low), float(high))


def table(groups: Mapping[str, Sequence[Curve]], grid: ArrayLike) -> dict[str, Any]:
    """Everything that is said of the groups, as plain values for JSON."""
    last = np.asarray(grid)[-1:]
    finals = {
        name: [float(on_grid(curve.steps, curve.values, last)[0]) for curve in curves]
        for name, curves in groups.items()
    }
    names = list(groups)
    return {
        "steps": [float(step) for step in np.asarray(grid)[[0, -1]]],
        "groups": {
            name: {
                "n": len(curves),
                "runs": {curve.name: final for curve, final in zip(curves, finals[name], strict=True)},
                "worst": min(zip(finals[name], (curve.name for curve in curves), strict=True))[1],
                "figures": {key: list(value) for key, value in reliability(curves, grid).items()},
            }
            for name, curves in groups.items()
        },
        "improvement": {
            f"{a} over {b}": list(probability_of_improvement(finals[a], finals[b]))
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        },
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
    lines += [
        "",
        f"Steps {first:,.0f} to {last:,.0f}, which all runs cover. Interquartile means over runs; in brackets 95 % "
        "intervals, runs drawn with replacement; none where n = 1.",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Sequence[float | None]) -> str:
    middle, low, high = value
    return f"{middle:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")
