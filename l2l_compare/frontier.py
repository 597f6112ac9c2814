"""What robustness costs, of graded runs: AutoAttack's accuracy against the seconds that training took."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from l2l_compare import figures
from l2l_compare.curves import GRADING
from l2l_experiment.errors import UserError
from l2l_experiment.files import file_name, read_mapping


class Graded(NamedTuple):
    """A run's grade and cost, and on what both depend: runs in which that differs are on no common scale."""

    robust: float  # test images that withstand AutoAttack, percent
    seconds: float  # of training, without probes and saving
    grade: tuple[Any, ...]
    machine: tuple[Any, ...]


def read(folder: Path) -> Graded:
    """A run's grade and cost; UserError if it was not graded."""
    record = read_mapping(folder / "record.json")
    result = record.get("result") or {}
    try:
        grade = result["grade"]
        on = tuple(grade[name] for name in GRADING)
        # A run may have been resumed on another machine, and its seconds are of all of them.
        machines = [record["machine"] or {}, *(some.get("machine") or {} for some in record.get("sessions") or ())]
        named = {tuple(machine.get(name) for name in ("cpu", "cores", "threads", "gpu")) for machine in machines}
        where = (*sorted(named, key=str), record.get("processes"))
        return Graded(100 * grade["autoattack"], result["training_seconds"], on, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} was not graded: l2l-grade-at {shlex.quote(str(folder))}") from error


def draw(tasks: Mapping[str, Mapping[str, Sequence[Path]]], stem: Path) -> tuple[list[Path], list[str]]:
    """Draw a picture a task, `tasks[task][group]` being folders of runs; returns pictures, and what cannot be shown.

    Costs are medians over a group's runs. They are clock times: of runs that were made side by side, or on a machine
    with other work, they say little (benchmarks/at_cost.py measures methods in turns)."""
    pictures, reasons = [], []
    for task, groups in tasks.items():
        found: dict[str, list[Graded]] = {}
        ungraded = []
        for name, folder in [(name, folder) for name, folders in groups.items() for folder in folders]:
            try:
                run = read(folder)
                found.setdefault(name, []).append(run)
            except UserError as error:
                ungraded.append(str(error))
        if ungraded:
            reasons.append(ungraded[0] + (f"; and {len(ungraded) - 1} more" if ungraded[1:] else ""))
        runs = [run for members in found.values() for run in members]
        if len(found) < 2:
            continue
        if len({run.grade for run in runs}) > 1:
            reasons.append(f"{task}: the runs were graded with different tiers, images, seeds or radii")
        elif len({run.machine for run in runs}) > 1:
            reasons.append(f"{task}: the runs were trained on different machines, whose times are no common cost")
        else:
            cost = {name: median(run.seconds for run in members) for name, members in found.items()}
            points = {name: (cost[name], [run.robust for run in members]) for name, members in found.items()}
            place = stem.with_name(stem.name + ("_" + file_name(task) if len(tasks) > 1 else ""))
            title, xlabel = f"{task}: robustness against cost", "seconds of training, median over runs"
            tier, count = runs[0].grade[:2]
            ylabel = f"robust test images, % (AutoAttack {tier}, n = {count})"
            pictures.append(figures.frontier(points, place, title=title, xlabel=xlabel, ylabel=ylabel))
    return pictures, reasons
