"""Cells of tables: figures of runs, and of what they are compared with, as text."""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.stats
from records import Selection

from l2l_compare.reliability import (
    RUNS_FOR_INTERVAL,
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    probability_of_improvement,
)

# Several statistics together, the second form where the runs are too few for the first.
FORMS = {
    "spread": ("{x.mean} ± {x.sd}", "{x.mean}"),
    "worst": ("{x.mean} ({x.min}, {n})",),
    "range": ("{x.mean} ({x.min} to {x.max})",),
    "place": ("{x.mean} at {at} ({x.min} to {x.max}, n = {n})", "{x.mean} ({x.min} to {x.max}, n = {n})"),
    "quartiles": ("{x.median} ({x.quarter} to {x.three_quarters})",),
    "reach": ("{x.iqm} [{x.iqm_low}, {x.iqm_high}]", "{x.iqm}"),
    "gaps": ("{x.gap} ({x.gap_low} to {x.gap_high})",),
}


class Missing(LookupError):
    """A figure that the runs do not have, or an interval for which they are too few."""


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
        value = STATISTICS[rest](values)
        if not np.isfinite(value):  # the median of when runs get somewhere, where most never do
            raise Missing(name)
        return value

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
    """Differences on the seeds that both have; ValueError if one seed has two runs, which a query mixes up."""

    def by_seed(some: Selection) -> dict[int, float]:
        found: dict[int, float] = {}
        for place, value in some.by_run(name).items():
            seed = some.runs[place]["settings"]["seed"]
            if seed in found:
                raise ValueError(f"two runs with seed {seed} in one cell, one of them {some.runs[place]['name']}")
            found[seed] = value
        return found

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


def cell(template: str, row: Row) -> str:
    """A cell filled; a dash if the runs are too few, or none, for what it names."""
    for form in forms(template):
        try:
            return Cells().format(form, row=row)
        except Missing:
            continue
    return "–"


def forms(template: str) -> list[str]:
    """A template with its first name of several statistics written out, once for each of their forms."""
    found = re.search(r"\{((?:base\.)?)([\w-]+)\.(\w+):([^}]*)\}", template)
    if found is None or found[3] not in FORMS:
        return [template]
    base, name, statistics, spec = found.groups()
    written = []
    for form in FORMS[statistics]:
        numbers = re.sub(r"\{x\.(\w+)\}", rf"{{{base}{name}.\1:{spec}}}", form)
        words = numbers.replace("{n}", f"{{{base}n}}").replace("{at}", f"{{{base}at}}")
        written.append(template[: found.start()] + words + template[found.end() :])
    return written
