"""The curve of a run, ours or anybody's TensorBoard folder, and what is known of the run."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2l_compare import events
from l2l_experiment import metrics
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping
from l2l_experiment.run import CONFIG, RECORD
from l2l_experiment.tools import TOOLS

Array = NDArray[np.float64]

# The return, as Stable-Baselines3 and we name it, and as the package imitation does: one figure.
RETURNS = ("rollout/ep_rew_mean", "raw/gen/rollout/ep_rew_mean")
PROBE = "robust/pgd10"  # adversarial training's: held-out accuracy under our own attack
TAGS = (*RETURNS, PROBE)
SEED = re.compile(r"(^|_)s\d+(_\d{8}-\d{6}(-\d+)?)?$")  # the end of a run's name that tells it from its group's others
# What other tools call runs that differ in their seed only (seed_0, seed3, run-1), or the folder of logs within a run.
OTHERS = re.compile(r"(^|[_-])(seed|run)[_-]?\d+$|^(logs?|tb|tensorboard|events)$", re.IGNORECASE)
NUMBERED = re.compile(r"(?<=[A-Z0-9])_\d+$")  # Stable-Baselines3's PPO_1, PPO_2
GRADING = ("tier", "n", "norm", "radius", "seed")  # of a grade; grades that differ in one are not on one scale
TASK = ("env", "dataset", "norm", "eps")  # settings between which returns and accuracies are not on one scale
GAP = 5  # times the median distance of two rows: our runs log at even steps, so that rows are missing there


@dataclass(frozen=True)
class Curve:
    """One run's curve, by rising steps."""

    name: str
    group: str  # what is compared with other groups of the same task
    tag: str
    steps: Array
    values: Array
    hours: Array  # of training until each value, NaN where nothing says so
    task: str = ""  # environment, or data set and threat model; empty for folders of other tools
    settings: Mapping[str, Any] = field(default_factory=dict)  # all of a run of ours, for telling what a group mixes
    result: Mapping[str, Any] = field(default_factory=dict)  # what the record of a run of ours says of its end
    doubled: int = 0  # steps for which several values were logged, of which the last counts
    missing: int = 0  # values in between that are NaN or infinite, and are left out

    @property
    def label(self) -> str:
        """Task and group."""
        return f"{self.task}: {self.group}" if self.task else self.group


def read(folder: Path, *, tag: str | None = None, by: Sequence[str] = (), unfinished: bool = False) -> Curve:
    """The curve of a run, ours or any folder with TensorBoard events.

    Ours are read from metrics.jsonl, others from their event files. Without `tag` the first of `TAGS` that is there is
    taken; the two names of the return stand for each other. The group is what the settings named in `by` say
    (config.yaml), or the folder's name without seed and time at its end, or that of the folder it lies in if nothing is
    left.

    UserError if there is nothing to read; and, unless `unfinished`, for a run of ours that is not finished or whose log
    has a gap or ends early, and for a log that is cut off, damaged, NaN or infinite at its end, or holds several values
    for one step (two writers, or a run that was resumed from before its end). With `unfinished` such a log is read as
    far as it goes, and the later value counts."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder of a run")
    ours = _is_ours(folder)
    record = read_mapping(folder / RECORD) if ours and (folder / RECORD).is_file() else {}
    if ours and not unfinished and (status := record.get("status", f"without {RECORD}")) != "finished":
        raise UserError(f"{folder} is {status}, not finished; resume it, or add --unfinished")
    content = read_mapping(folder / CONFIG) if ours and (folder / CONFIG).is_file() else {}
    inner = content.pop("settings", None)
    content |= inner if isinstance(inner, dict) else {}
    settings = {str(name): value for name, value in content.items()}
    task = ", ".join(str(settings[name]) for name in TASK if name in settings)
    has_rows = ours and (folder / metrics.METRICS).is_file()
    logged = (
        _rows(folder, unfinished, record.get("steps")) if has_rows else events.reader(folder, strict=not unfinished)
    )
    lost = None  # a figure that is logged, but as NaN
    for candidate in TAGS if tag is None else RETURNS if tag in RETURNS else (tag,):
        points = logged(candidate)
        last = {step: (value, hours) for step, value, hours in points}  # of several values for one step
        steps = np.array(sorted(last))
        values, hours = np.array([last[step] for step in steps], dtype=np.float64).reshape(-1, 2).T
        finite = np.isfinite(values)
        known = np.flatnonzero(finite)
        if len(known) < 2:
            lost = lost or (candidate if len(values) > 1 else None)
            continue
        if not finite[-1] and not unfinished:
            raise UserError(
                f"{folder}: {candidate} is NaN or infinite after step {steps[known[-1]]:.0f}: it diverged "
                "(--unfinished: read it up to there)"
            )
        group = _group(folder, by, settings)
        if (doubled := len(points) - len(last)) and not unfinished:
            raise UserError(
                f"{folder} logged {doubled} steps twice; if it is one run that was resumed, the later values count "
                "(--unfinished), but it may be two runs in one folder"
            )
        figure = RETURNS[0] if candidate in RETURNS else candidate
        missing = int(known[-1] - known[0] + 1 - len(known))  # before its first value a figure may have none
        some = (part[finite] for part in (steps, values, hours))
        result = record.get("result") if isinstance(record.get("result"), dict) else {}
        return Curve(str(folder), group, figure, *some, task, settings, result, doubled, missing)
    if lost is not None:
        raise UserError(f"{folder}: {lost} is NaN or infinite throughout: it diverged; leave the run out")
    wanted = tag or " or ".join(TAGS)
    raise UserError(f"{folder} holds fewer than two values of {wanted}; name another --tag, or leave the run out")


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a run of this project: other tools leave files of the same names, with other contents."""
    with contextlib.suppress(UserError):
        return read_mapping(folder / RECORD).get("kind") in TOOLS
    config = folder / CONFIG
    return (folder / metrics.METRICS).is_file() and config.is_file() and b"settings:" in config.read_bytes()


def _rows(folder: Path, unfinished: bool, end: float | None) -> Callable[[str], events.Logged]:
    """What metrics.jsonl holds of each tag; UserError if steps are missing in between, or at the end of a run that made
    `end`, unless `unfinished`.

    A clock that starts anew is that of a resumed run: its hours go on from there."""
    rows = metrics.read(folder / metrics.METRICS, strict=not unfinished)
    steps, told = np.unique([float(row["step"]) for row in rows]), None
    if len(steps) > 1 and (apart := np.diff(steps)).max() > GAP * np.median(apart):
        told = f"has a gap after step {steps[apart.argmax()]:.0f}"
    elif len(steps) > 1 and steps[0] > GAP * np.median(apart):
        told = f"begins at step {steps[0]:.0f} only"
    elif len(steps) and end is not None and steps[-1] < end:
        told = f"ends at step {steps[-1]:.0f}, though the run made {end:.0f}"
    if told and not unfinished:
        raise UserError(f"{folder}: its log {told}; restore {metrics.METRICS}, or add --unfinished")
    before, last, clocked = 0.0, np.nan, []
    for row in rows:
        now = row.get(metrics.SECONDS, last)  # what an evaluation logs has no clock of its own
        if now < last:
            before += last
        last = now if np.isfinite(now) else last
        clocked.append((row, (before + now) / 3600))
    return lambda tag: [(float(row["step"]), row[tag], hours) for row, hours in clocked if tag in row]


def _group(folder: Path, by: Sequence[str], known: Mapping[str, Any]) -> str:
    if by and known:
        names = [name for name in by if name not in TASK] or by  # the task is told beside the group
        # Runs of two tools may be compared: each has its settings.
        values = {name: known.get(name, "–") for name in names}
        return ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in values.items())
    for place in (folder.resolve(), *folder.resolve().parents):
        name = SEED.sub("", place.name)
        if not known:
            name = SEED.sub("", OTHERS.sub("", name))
            name = NUMBERED.sub("", name) if name.isupper() else name
        if name:
            return name
    return folder.resolve().name
