"""Records of runs and of measurements in docs/results: which runs a query asks for, and their figures."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from l2l_experiment import stability

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
RETURN = "rollout/ep_rew_mean"
USUAL = {"attack_step_size": 0.75}  # of the residual attacker, where its settings leave it open
# Where figures stand: a path into a run (a curve counts with its last value, or one at a step), `curve` and a figure of
# its return (l2l_experiment/stability.py), or 100 times either.
PATHS = {
    "percent": "result.percent_of_expert",
    "way": "result.percent_from_random",
    "return": "result.return.mean",
    "seconds": "result.training_seconds",
    "fall": "result.stability.largest_fall",
    "late": "curve late_fall",
    "final": "curve final",
    "average": "curve average",
    "drawdown": "curve drawdown_cvar",
    "log_rate": "curves.train_follower/log_rate",
    "steepness": "curves.discriminator/steepness at 100000",
    "slope": "curves.discriminator/slope at 100000",
    "velocity": "curves.discriminator/velocity at 200000",
    "clean": "100 * result.grade.clean",
    "robust": "100 * result.grade.attacks.apgd-t",  # which comes after APGD-CE, on the images that this has left
    "full": "100 * result.grade.autoattack",
    "foolbox": "100 * result.grade.attacks.foolbox-pgd50",
    "probe": "100 * result.best.pgd10",
    "probe_clean": "100 * result.best.clean",
    "strength": "result.strength",
    "gain": "result.gain",
    "alarmed": "result.alarms",
    "ends_alarmed": "result.alarm_at_end",
    "start": "result.loss.as it starts",
    "learned": "result.loss.as learned",
    "fitted": "result.loss.after fitting",
    "pgd2": "result.loss.PGD-2",
    "pgd10": "result.loss.PGD-10",
    "pgd50": "result.loss.PGD-50",
}
Run = dict[str, Any]


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
        path = PATHS.get(name, name)
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
    if "without_seed" not in run:  # kept with the run: tables ask for it often
        settings = {name: value for name, value in run["settings"].items() if name != "seed"}
        run["without_seed"] = json.dumps(settings, sort_keys=True)
    return run["without_seed"]


def figure(run: Run, path: str, beside: Sequence[Run]) -> float | None:
    """A number of a run; None if it has none. Curves are measured on the steps that equal runs `beside` it share."""
    if path in ("left", "broken"):  # images, by the first two attacks of AutoAttack and then by the other two
        images, attacks = (run["result"]["grade"][name] for name in ("n", "attacks"))
        return round(images * (attacks["apgd-t"] - (attacks["square"] if path == "broken" else 0)))
    if path.startswith("curve "):
        return _of_curve(run, path.removeprefix("curve "), beside)
    if path in ("near", "minutes"):  # steps, and minutes of training, until the training return is near the expert's
        first = _near_expert(run)
        if path == "near" or first in (None, np.inf):
            return first
        seconds = run["result"].get("training_seconds")
        return None if seconds is None else first / run["curves"][RETURN][0][-1] * seconds / 60
    path, _, step = path.partition(" at ")
    value: Any = run
    parts = path.split(".", 2) if path.startswith("curves") else path.split(".")
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list) and parts[0] == "curves":
        steps, values = value
        return values[int(np.argmin(np.abs(np.array(steps) - float(step))))] if step else values[-1]
    return bool(value) if isinstance(value, list) else value


def _near_expert(run: Run) -> float | None:
    """The first step at which the training return is near the demonstrations'; infinite if it never is."""
    expert, random = ((run["result"].get(name) or {}).get("mean") for name in ("expert", "random"))
    if RETURN not in run["curves"] or (level := stability.near_expert_return(expert, random)) is None:
        return None
    first = stability.first_reached(*run["curves"][RETURN], level)
    return np.inf if np.isnan(first) else first


def _of_curve(run: Run, name: str, beside: Sequence[Run]) -> float | None:
    if RETURN not in run["curves"]:
        return None
    same = [other["curves"][RETURN] for other in beside if _without_seed(other) == _without_seed(run)]
    grid = np.linspace(max(c[0][0] for c in same), min(c[0][-1] for c in same), stability.GRID_POINTS)
    value = stability.summarise(*run["curves"][RETURN], grid)[name]
    return value if np.isfinite(value) else None


def ratios(record: str, one: str, other: str | None = None) -> list[float]:
    """What was measured in turns, of one over another; of one alone if there is no other."""
    content = load(record)
    (measured,) = (
        content[name]
        for name in ("seconds_a_step", "seconds_an_epoch", "steps_per_second", "megabytes")
        if name in content
    )
    if one not in measured or (other is not None and other not in measured):
        return []
    return [a / b for a, b in zip(measured[one], measured[other], strict=True)] if other else measured[one]
