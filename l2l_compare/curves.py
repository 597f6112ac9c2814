"""The curve of a run, ours or anybody's TensorBoard folder, and what is known of the run."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2l_experiment import events
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping

RETURNS = ("rollout/ep_rew_mean", "raw/gen/rollout/ep_rew_mean")
"""The return, as Stable-Baselines3 and we name it, and as the package imitation does: one figure."""
PROBE = "robust/pgd10"
"""Adversarial training's: held-out accuracy under our own attack."""
TAGS = (*RETURNS, PROBE)
SEED = re.compile(r"(^|_)s\d+(_\d{8}-\d{6}(-\d+)?)?$")  # the end of a run's name that tells it from its group's others
# What other tools call runs that differ in their seed only (seed_0, seed3, run-1), or the folder of logs within a run.
OTHERS = re.compile(r"(^|[_-])(seed|run)[_-]?\d+$|^(logs?|tb|tensorboard|events)$", re.IGNORECASE)
NUMBERED = re.compile(r"(?<=[A-Z0-9])_\d+$")  # Stable-Baselines3's PPO_1, PPO_2
TASK = ("env", "dataset", "norm", "eps")  # settings between which returns and accuracies are not on one scale
KINDS = ("gail", "at")
GAP = 5  # times the median distance of two rows: our runs log at even steps, so that rows are missing there


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
    missing: int = 0
    """Values in between that are no finite numbers, and are left out."""

    @property
    def label(self) -> str:
        """Task and group."""
        return f"{self.task}: {self.group}" if self.task else self.group


def read(folder: Path, *, tag: str | None = None, by: Sequence[str] = (), unfinished: bool = False) -> Curve:
    """The curve of a run, ours or any folder with TensorBoard events.

    Ours are read from metrics.jsonl, others from their event files. Without `tag` the first of `TAGS` that is there is
    taken; the two names of the return stand for each other. The group is what the settings named in `by` say
    (config.yaml), or the folder's name without seed and time at its end, or that of the folder it lies in if nothing is
    left. UserError if there is nothing to read, and for a run of ours that is not finished, or whose log has a gap or
    ends before the run, and for logs that are cut off, damaged, no finite numbers at the end or hold several values for
    one step (two writers, or a run that was resumed from before its end), unless `unfinished`: then they are read as
    far as they go, and the later value counts.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder of a run")
    ours = _is_ours(folder)
    record = read_mapping(folder / "record.json") if ours and (folder / "record.json").is_file() else {}
    if ours and not unfinished and (status := record.get("status", "without record.json")) != "finished":
        raise UserError(f"{folder} is {status}, not finished; resume it, or add --unfinished")
    settings = _settings(folder) if ours else {}
    task = ", ".join(str(settings[name]) for name in TASK if name in settings)
    for candidate in TAGS if tag is None else RETURNS if tag in RETURNS else (tag,):
        steps, values, hours, doubled = _points(folder, candidate, ours, unfinished, record.get("steps"))
        finite = np.isfinite(values)
        known = np.flatnonzero(finite)
        if len(known) > 1:
            if not finite[-1] and not unfinished:
                raise UserError(
                    f"{folder}: {candidate} is no finite number after step {steps[known[-1]]:.0f}: it diverged "
                    "(--unfinished: read it up to there)"
                )
            group = _group(folder, by, settings)
            if doubled and not unfinished:
                raise UserError(
                    f"{folder} logged {doubled} steps twice: of one run that was resumed the later values count "
                    "(--unfinished), but two runs in one folder are none"
                )
            figure = RETURNS[0] if candidate in RETURNS else candidate
            points = (part[finite] for part in (steps, values, hours))
            missing = int(known[-1] - known[0] + 1 - len(known))  # before its first value a figure may have none
            return Curve(str(folder), group, figure, *points, task, settings, doubled, missing)
    wanted = tag or " or ".join(TAGS)
    raise UserError(f"{folder} holds fewer than two values of {wanted}; name another --tag, or leave the run out")


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a run of this project: other tools leave files of the same names, with other contents."""
    with contextlib.suppress(UserError):
        return read_mapping(folder / "record.json").get("kind") in KINDS
    config = folder / "config.yaml"
    return (folder / events.METRICS).is_file() and config.is_file() and b"settings:" in config.read_bytes()


def _points(
    folder: Path, tag: str, ours: bool, unfinished: bool, end: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """Steps, values and hours of a curve, NaN where it is no finite number, and how many steps were logged again."""
    if ours and (folder / events.METRICS).is_file():
        rows = events.read(folder / events.METRICS, whole=not unfinished)
        if not unfinished:
            _check_whole(folder, [float(row["step"]) for row in rows], end)
        logged = [
            (float(row["step"]), row[tag], hours) for row, hours in zip(rows, _hours(rows), strict=True) if tag in row
        ]
        points = {step: (value, hours) for step, value, hours in logged}
        steps = sorted(points)
        values, hours = (np.array([points[step][part] for step in steps], dtype=np.float64) for part in (0, 1))
        return np.array(steps), values, hours, len(logged) - len(points)
    steps, values, seconds, doubled = events.read_timed(folder, tag, whole=not unfinished)
    return steps.astype(np.float64), values, seconds / 3600, doubled


def _check_whole(folder: Path, logged: Sequence[float], end: float | None) -> None:
    """UserError if steps are missing in between, or at the end of a run that made `end`."""
    steps, told = np.unique(logged), None
    if len(steps) > 1 and (apart := np.diff(steps)).max() > GAP * np.median(apart):
        told = f"has a gap behind step {steps[apart.argmax()]:.0f}"
    elif len(steps) and end is not None and steps[-1] < end:
        told = f"ends at step {steps[-1]:.0f}, though the run made {end:.0f}"
    if told:
        raise UserError(f"{folder}: its log {told}; restore {events.METRICS}, or add --unfinished")


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
        for place in (folder.resolve(), *folder.resolve().parents):
            name = SEED.sub("", place.name)
            if not known:
                name = SEED.sub("", OTHERS.sub("", name))
                name = NUMBERED.sub("", name) if name.isupper() else name
            if name:
                return name
        return folder.resolve().name
    if missing := [name for name in by if name not in known]:
        raise UserError(
            f"--by {missing[0]}: {folder}/config.yaml has no such setting; it has {', '.join(sorted(known))}"
        )
    return ", ".join(str(known[name]) if isinstance(known[name], str) else f"{name} {known[name]}" for name in by)
