"""Figures of recorded runs of imitation, as sentences need them: by seed, over seeds, between followers."""

import json
from typing import Any

import numpy as np
import sensitivity
from gail_tables import DATA, recorded, swept, version
from pages import gaps

SLOW = 3e-5  # a discriminator's rate that is too small
LEARNED = ("l2l", "l2l-rate")
BySeed = dict[int, float]


def percents(who: str, runs: list[dict[str, Any]], **settings: Any) -> BySeed:
    """Percent of the expert by seed, of one version of a follower."""
    return {
        run["settings"]["seed"]: run["result"]["percent_of_expert"]
        for run in of_version(who, runs)
        if all(run["settings"][name] == value for name, value in settings.items())
    }


def of_version(who: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of one version of a follower."""
    return [run for run in runs if version(run["settings"]) == who]


def of(experiment: str) -> list[dict[str, Any]]:
    """All runs of an experiment."""
    return list(recorded(experiment).values())


def mean(by_seed: BySeed) -> float:
    """Over seeds."""
    return float(np.mean([*by_seed.values()]))


def lowest(by_seed: BySeed) -> float:
    """The worst seed's."""
    return min(by_seed.values())


def last(run: dict[str, Any], tag: str) -> float:
    """Where a curve ends."""
    return run["curves"][tag][-1]


def speeds(name: str) -> dict[str, Any]:
    """A record of environment steps per second."""
    return json.loads((DATA / f"{name}.json").read_text())


def one_demonstration() -> list[dict[str, Any]]:
    """The runs of *No rate to tune*: one demonstration, with the penalty, both followers."""
    runs = [run for run in swept() if run["settings"]["num_demos"] == 1 and run["settings"]["gradient_penalty"] == 1]
    return [run for run in runs if run["settings"]["follower"] in ("adam", "l2l")]


def late_fall(who: str, runs: list[dict[str, Any]], rate: float) -> float:
    """The largest fall of a follower's runs once they were halfway up, mean over seeds."""
    return mean(late_falls(who, runs, disc_rate=rate))


def late_falls(who: str, runs: list[dict[str, Any]], **settings: Any) -> BySeed:
    """The largest fall of each of a follower's runs once it was halfway up, by seed."""
    return {
        run["settings"]["seed"]: sensitivity.falls(run)[1]
        for run in of_version(who, runs)
        if all(run["settings"][name] == value for name, value in settings.items())
    }


def network_over_rate() -> list[float]:
    """`l2l` minus `l2l-rate` by seed, mean over the rates that both were run with, in points of the expert's return."""
    whole, alone = ([percents(who, of("rates"), disc_rate=rate) for rate in (SLOW, 3e-4, 3e-3)] for who in LEARNED)
    each = [gaps(*pair) for pair in zip(whole, alone, strict=True)]
    return [float(value) for value in np.mean(each, axis=0)]


def ends(who: str) -> list[str]:
    """The rates at which a learned rule ends that starts from 3e-5, by seed."""
    runs = [run for run in of_version(who, of("rates")) if run["settings"]["disc_rate"] == SLOW]
    runs = sorted(runs, key=lambda run: run["settings"]["seed"])
    return [sensitivity.rate_name(SLOW * np.exp(last(run, "follower/log_rate")), digits=1) for run in runs]


def course(who: str) -> tuple[str, float, str]:
    """The highest rate of a learned rule that starts from 3e-5 (mean log rate over seeds), after how many thousand
    steps, and the rate where it ends."""
    runs = [run for run in of_version(who, of("rates")) if run["settings"]["disc_rate"] == SLOW]
    logs = np.mean([run["curves"]["follower/log_rate"] for run in runs], axis=0)
    highest = int(np.argmax(logs))
    shown = [sensitivity.rate_name(SLOW * np.exp(log), digits=1) for log in (logs[highest], logs[-1])]
    return shown[0], runs[0]["grid"][highest] / 1000, shown[1]


def key_of(run: dict[str, Any]) -> tuple[float, int]:
    """A run's rate and seed."""
    return run["settings"]["disc_rate"], run["settings"]["seed"]
