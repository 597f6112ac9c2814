"""Records of runs and of measurements in docs/results, and what queries (tables.yml) ask of them."""

import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from l2l_compare.reliability import (
    RUNS_FOR_INTERVAL,
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
)
from l2l_experiment import stability

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
RETURN = "rollout/ep_rew_mean"
USUAL = {"attack_step_size": 0.75}  # of the residual attacker, where its settings leave it open
Run = Mapping[str, Any]


class Missing(LookupError):
    """A figure that the runs do not have, or an interval for which they are too few."""


@cache
def load(name: str) -> dict[str, Any]:
    """A record, e.g. gail/main."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def runs(names: Iterable[str]) -> list[Run]:
    """All runs of some records, with their names, in order of their seeds."""
    found = [{"name": key, **run} for name in names for key, run in load(name)["runs"].items()]
    return sorted(found, key=lambda run: run["settings"].get("seed", 0))


def trained_by(settings: Mapping[str, Any]) -> str:
    """A method of adversarial training with what is special about it, as the records of costs name it."""
    name = settings.get("method", "none")
    if settings.get("freeze_attacker"):
        name = "frozen" if name == "l2l" else f"{name}-frozen"
    name += {"swa": "-swa", "none": "-unaveraged"}.get(settings.get("average"), "")
    name += "-awp" if settings.get("awp") else ""
    return name + ("-consistent" if name == "fast-bat" and settings.get("bat_lambda") == 0 else "")


def key(run: Run, name: str) -> Any:
    """A setting of a run; or `trained_by`; `learning`, the attacker's learning rate if it has one; or `run`, the run's
    name without its seed."""
    settings = run["settings"]
    if name == "trained_by":
        return trained_by(settings)
    if name == "learning":
        return "nothing" if settings["freeze_attacker"] else settings["attacker_learning_rate"]
    if name == "run":
        return re.sub(r"(_s|, seed )\d+$", "", run["name"])
    value = settings.get(name)
    return USUAL.get(name) if value is None else value


def label(value: Any) -> str:
    """A setting's value in a table: 3e-5, 0.02, adam."""
    if isinstance(value, float):
        return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.01 else f"{value:g}"
    return str(value)


def matches(run: Run, where: Mapping[str, Any]) -> bool:
    """Whether settings are as wanted: a value, one of a list, or `{not: a value}`."""

    def one(name: str, wanted: Any) -> bool:
        if isinstance(wanted, Mapping):
            return not one(name, wanted["not"])
        value = key(run, name)
        options = wanted if isinstance(wanted, list) else [wanted]
        return any(value == option or label(value) == label(option) for option in options)

    return all(one(name, wanted) for name, wanted in where.items())


@dataclass(frozen=True)
class Selection:
    """Runs, and lists of numbers beside them that belong to no run."""

    paths: Mapping[str, str]
    """Where figures stand: a path into a run (a curve counts with its last value), a function, or 100 times either."""
    runs: Sequence[Run] = ()
    lists: Mapping[str, Sequence[float]] = field(default_factory=dict)
    at: str = ""
    """The value of the setting that `picked` chose."""

    def where(self, wanted: Mapping[str, Any]) -> "Selection":
        return replace(self, runs=[run for run in self.runs if matches(run, wanted)])

    def picked(self, over: str, by: str, of: str) -> "Selection":
        """The runs at the value of a setting at which their mean is lowest (min) or highest (max)."""
        values = list(dict.fromkeys(key(run, over) for run in self.runs))
        groups = {value: [run for run in self.runs if key(run, over) == value] for value in values}
        means = {value: np.mean([*replace(self, runs=some).by_run(by).values()]) for value, some in groups.items()}
        chosen = {"min": min, "max": max}[of](sorted(means, key=lambda v: v or 0), key=means.__getitem__)
        return replace(self, runs=groups[chosen], at=label(chosen))

    def by_run(self, name: str) -> dict[int, float]:
        """A figure by the run's place, of the runs that have it."""
        path = self.paths.get(name, name)
        factor, _, path = path.rpartition(" * ")
        found = {place: figure(run, path, self.runs) for place, run in enumerate(self.runs)}
        return {place: float(factor or 1) * value for place, value in found.items() if value is not None}

    def values(self, name: str) -> list[float]:
        """A figure of all runs that have it."""
        return list(self.lists[name]) if name in self.lists else [*self.by_run(name).values()]

    def strata(self, name: str) -> list[list[float]]:
        """A figure by group of runs that differ in their seeds alone."""
        groups: dict[str, list[float]] = {}
        for place, value in self.by_run(name).items():
            groups.setdefault(_without_seed(self.runs[place]), []).append(value)
        return [groups[name] for name in sorted(groups)]  # in the same order for another follower


def _without_seed(run: Run) -> str:
    return json.dumps({name: value for name, value in run["settings"].items() if name != "seed"}, sort_keys=True)


def figure(run: Run, path: str, beside: Sequence[Run]) -> float | None:
    """A number of a run; None if it has none. Curves are measured on the steps that equal runs `beside` it share."""
    if path == "broken by the other attacks":
        grade = run["result"]["grade"]
        return round(grade["n"] * (grade["attacks"]["apgd-t"] - grade["attacks"]["square"]))
    if path == "left by the first attacks":
        return round(run["result"]["grade"]["n"] * run["result"]["grade"]["attacks"]["apgd-t"])
    if path.startswith("curve "):
        return _of_curve(run, path.removeprefix("curve "), beside)
    path, _, step = path.partition(" at ")
    value: Any = run
    parts = path.split(".", 2) if path.startswith("curves") else path.split(".")
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list) and parts[0] == "curves":
        steps, values = value
        return values[int(np.argmin(np.abs(np.array(steps) - float(step))))] if step else values[-1]
    return bool(value) if isinstance(value, list) else value


def _of_curve(run: Run, name: str, beside: Sequence[Run]) -> float | None:
    if RETURN not in run["curves"]:
        return None
    same = [other["curves"][RETURN] for other in beside if _without_seed(other) == _without_seed(run)]
    grid = np.linspace(max(c[0][0] for c in same), min(c[0][-1] for c in same), stability.GRID_POINTS)
    value = stability.summarise(*run["curves"][RETURN], grid)[name]
    return value if np.isfinite(value) else None


def interval(values: Sequence[float], half: Any, sign: int) -> float:
    if len(values) < RUNS_FOR_INTERVAL:
        raise Missing
    return np.mean(values) + sign * half(values)


STATISTICS = {
    "mean": np.mean,
    "median": np.median,
    "min": min,
    "max": max,
    "sum": sum,
    "iqm": interquartile_mean,
    "low": lambda values: interval(values, mean_interval, -1),
    "high": lambda values: interval(values, mean_interval, 1),
    "quarter": lambda values: np.quantile(values, 0.25),
    "three_quarters": lambda values: np.quantile(values, 0.75),
    "median_low": lambda values: bootstrap_interval([values], np.median)[0],
    "median_high": lambda values: bootstrap_interval([values], np.median)[1],
}


@dataclass(frozen=True)
class Row:
    """What a cell may speak of: some runs, and those they are compared with."""

    own: Selection
    base: Selection
    alias: Mapping[str, str] = field(default_factory=dict)

    def where(self, wanted: Mapping[str, Any]) -> "Row":
        return replace(self, own=self.own.where(wanted), base=self.base.where(wanted))

    def get(self, name: str) -> Any:
        """The figure that a cell names: `n`, `at`, or FIGURE.STATISTIC; with `base.` in front of the others."""
        head, _, rest = name.partition(".")
        if head == "base":
            return replace(self, own=self.base).get(rest)
        if head == "at":
            if not self.own.at:
                raise Missing(name)
            return self.own.at
        if head == "n" and not rest:
            return len(self.own.runs)
        head = self.alias.get(head, head)
        values = self.own.values(head)
        if rest == "n":
            return len(values)
        if rest == "some":  # says so if not all runs have the figure
            return "" if len(values) == len(self.own.runs) else f" ({len(values)})"
        if not values:
            raise Missing(name)
        if rest == "sd":
            if len(values) < 2:
                raise Missing(name)
            return np.std(values, ddof=1)
        if rest == "each":
            return Each(values)
        if rest in ("iqm_low", "iqm_high"):
            strata = self.own.strata(head)
            if min(map(len, strata)) < RUNS_FOR_INTERVAL:
                raise Missing(name)
            return bootstrap_interval(strata)[rest == "iqm_high"]
        if rest.startswith("above"):
            return self._above(head, rest)
        if rest.startswith(("gap", "welch")):
            return self._difference(head, rest)
        return STATISTICS[rest](values)

    def _above(self, name: str, part: str) -> float:
        """The probability that a run ends higher than one of those it is compared with, mean over strata."""
        pairs = list(zip(self.own.strata(name), self.base.strata(name), strict=True))
        value = probability_of_improvement(pairs)[("above", "above_low", "above_high").index(part)]
        if value is None:
            raise Missing(part)
        return value

    def _difference(self, name: str, part: str) -> float:
        """Own runs minus the others: on the same seeds with Student's t interval (gap), or of all with Welch's."""
        kind, _, end = part.partition("_")
        if kind == "welch":
            ours, theirs = self.own.values(name), self.base.values(name)
            reach = scipy.stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
            return {"": np.mean(ours) - np.mean(theirs), "low": reach.low, "high": reach.high}[end]
        gaps = paired(self.own, self.base, name)
        if not gaps:
            raise Missing(part)
        return len(gaps) if end == "n" else STATISTICS[end or "mean"](gaps)


def paired(own: Selection, base: Selection, name: str) -> list[float]:
    """Differences on the seeds that both have; over several values of other settings, seed and value by value."""

    def by_seed(some: Selection) -> dict[int, float]:
        return {some.runs[place]["settings"]["seed"]: value for place, value in some.by_run(name).items()}

    ours, theirs = by_seed(own), by_seed(base)
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


class Each(list[float]):
    """Numbers one after the other."""

    def __format__(self, form: str) -> str:
        return ", ".join(format(value, form) for value in self)


class Cells(string.Formatter):
    """Fills cells: `{percent.mean:.1f} ({percent.min:.1f}, {n})`."""

    def get_field(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs["row"].get(name), name


def cell(templates: str | Sequence[str], row: Row) -> str:
    """The first of the templates for which there are all figures; a dash if there is none."""
    for template in [templates] if isinstance(templates, str) else templates:
        try:
            return Cells().format(template, row=row)
        except Missing:
            continue
    return "–"


def ratios(record: str, one: str, other: str | None = None) -> list[float]:
    """What was measured in turns, of one over another; of one alone if there is no other."""
    content = load(record)
    (measured,) = (content[name] for name in ("seconds_a_step", "steps_per_second") if name in content)
    if one not in measured or (other is not None and other not in measured):
        return []
    return [a / b for a, b in zip(measured[one], measured[other], strict=True)] if other else measured[one]
