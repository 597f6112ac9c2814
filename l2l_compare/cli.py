"""The command `compare`: runs, ours or anybody's TensorBoard folders, beside each other."""

import json
import shlex
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from l2l_compare import comparison, frontier
from l2l_compare.curves import PROBE, RETURNS, Curve, read
from l2l_compare.figures import learning_curves
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import file_name, make_folder, write_atomically
from l2l_experiment.settings import parse

AXIS_LABELS = {RETURNS[0]: "return while training", PROBE: "held-out accuracy under PGD-10"}  # axes of figures
PARALLEL_FROM = 20  # from so many runs on they are read on all cores


@dataclass(frozen=True)
class Args:
    """Curves, reliability and probability of improvement of groups of runs, with intervals."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs; one that cannot be read is named and left out."""
    by: tuple[str, ...] = ()
    """Settings that make a group, e.g. follower, or env follower; by default the folder's name without its seed."""
    tag: str | None = None
    """The figure to compare, as TensorBoard names it; higher must be better. By default the return, or the held-out
    PGD-10 accuracy."""
    lower_is_better: bool = False
    """Lower is better: negate the figure before comparing."""
    level: float | None = None
    """Tell when runs first reach this value; by default 90 % of the demonstrations' return, or, where that is negative,
    90 % of the way to it from a random policy's return."""
    min_steps: float = 0
    """Leave out runs that end before this step; the shortest run decides how far all are compared."""
    unfinished: bool = False
    """Take in runs of ours that are not finished, logs that are cut off, as far as they reach, and logs with several
    values for one step, of which the later counts."""
    out: Path = Path("comparison")
    """Folder for table.md, comparison.json, the pictures (curves, curves_hours and, of graded runs of adversarial
    training, frontier; of several tasks one each) and tensorboard/."""


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Read, compare, write."""
    args = parse(Args, argv)
    if args.level is not None and not np.isfinite(args.level):
        raise UserError(f"--level must be finite, got {args.level}")
    from l2l_compare import board  # loads slowly, and --help must not wait for it

    curves = collect(args)
    make_folder(args.out)
    tag = curves[0].tag
    groups = comparison.grouped(curves)
    if args.level is None and (apart := comparison.tasks_with_different_demonstrations(groups)):
        warn(f"{', '.join(apart)}: runs have other demonstrations, so there is no common 90 % to reach; see --level")
    level = 0 - args.level if args.lower_is_better and args.level is not None else args.level
    content = {"tag": tag} | comparison.table(groups, level=level)
    for task, found in content["tasks"].items():
        if found["ends_first"]:
            last = f"step {found['steps'][1]:,.0f}"
            warn(f"{found['ends_first']} ends at {last}: {task or 'all runs'} compared up to there (see --min-steps)")
    gradings = {(curve.task, comparison.grading_of(curve)) for curve in curves if curve.result.get("grade")}
    graded = Counter(task for task, _ in gradings)
    for task in sorted(task for task, count in graded.items() if count > 1):
        told = "the runs were graded with different tiers, images, seeds or radii"
        warn(f"{task or 'all runs'}: {told}; do not compare their AutoAttack %")
    text = comparison.markdown(content)
    write_atomically(args.out / "table.md", text.encode())
    write_atomically(args.out / "comparison.json", (json.dumps(content, indent=1) + "\n").encode())
    for old in (*args.out.glob("curves*.png"), *args.out.glob("frontier*.png")):
        old.unlink()
    grids = comparison.grids(groups)
    pictures = draw_curves(groups, grids, tag, args.out) + draw_frontiers(curves, args.out)
    board.write(args.out / "tensorboard", groups, grids, tag)
    print(f"{tag}, interquartile means over runs at the last step that all reach\n")
    print(f"{comparison.terminal_table(content)}\n")
    written = ", ".join(["table.md, comparison.json", *(path.name for path in pictures)])
    print(f"{args.out}: {written}\nSee curves:  tensorboard --logdir {shlex.quote(str(args.out / 'tensorboard'))}")


def collect(args: Args) -> list[Curve]:
    """The curves that can be compared, of one figure; what is left out, or doubtful, is told on stderr."""
    import joblib

    folders = list({folder.resolve(): folder for folder in args.runs}.values())
    cores = -1 if len(folders) >= PARALLEL_FROM else 1
    found = joblib.Parallel(n_jobs=cores)(joblib.delayed(try_read)(folder, args) for folder in folders)
    curves = [curve for curve in found if isinstance(curve, Curve)]
    for curve in curves:
        if curve.steps[-1] < args.min_steps:
            last = f"step {curve.steps[-1]:,.0f}"
            warn(f"left out: {curve.name} ends at {last}, before --min-steps {args.min_steps:,.0f}")
    curves = [curve for curve in curves if curve.steps[-1] >= args.min_steps]
    for reason in found:
        if isinstance(reason, str):
            warn(f"left out: {reason}")
    if not curves:
        raise UserError("there is no run to compare; name the folders of runs")
    if len(tags := sorted({curve.tag for curve in curves})) > 1:
        raise UserError(f"the runs log different figures ({', '.join(tags)}); choose one with --tag")
    known = {name for curve in curves for name in curve.settings}
    if args.by and not known:
        raise UserError("--by needs runs of this project: other tools' runs are grouped by the names of their folders")
    if known and (unknown := [name for name in args.by if name not in known]):
        raise UserError(f"--by {unknown[0]}: no run has such a setting; they have {', '.join(sorted(known))}")
    if args.lower_is_better:
        curves = [replace(curve, tag=f"minus {curve.tag}", values=-curve.values) for curve in curves]
    for curve in curves:
        if curve.doubled:
            warn(f"{curve.name} logged {curve.doubled} steps twice; the later value counts")
        if curve.missing:
            warn(f"{curve.name}: {curve.missing} values between others are NaN or infinite; a line bridges them")
    if "" in (tasks := {curve.task for curve in curves}) and len(tasks) > 1:
        named = " or ".join(sorted(tasks - {""}))
        told = f"taken to be of {named}" if len(tasks) == 2 else f"not compared with those of {named}"
        warn(f"folders of other tools do not name their task: they are {told}")
    curves, apart = comparison.overlapping(comparison.fill_in_task(curves))
    for curve in apart:
        first, last = (f"{step:,.0f}" for step in curve.steps[[0, -1]])
        warn(f"left out: {curve.name} covers steps {first} to {last}, which others do not share")
    if not curves:
        raise UserError("no run has two values; there is nothing to compare")
    return curves


def try_read(folder: Path, args: Args) -> Curve | str:
    """A run's curve, or why there is none."""
    try:
        return read(folder, tag=args.tag, by=args.by, unfinished=args.unfinished)
    except UserError as error:
        return str(error)
    except (OSError, ValueError, TypeError, OverflowError) as error:
        return f"{folder} cannot be read ({error})"  # whatever else a damaged folder does, the others are compared


def draw_curves(groups: dict[str, list[Curve]], grids: dict[str, np.ndarray], tag: str, out: Path) -> list[Path]:
    """Learning curves over steps and, where every run says when it wrote its values, over hours: of several tasks a
    picture each, in which a group has one colour."""
    tasks, pictures = comparison.by_task(groups), []
    colours = sorted({curves[0].group for curves in groups.values()})
    for task, some in tasks.items():
        suffix, title = "_" + file_name(task) if len(tasks) > 1 else "", task or tag
        worst = {curves[0].group: comparison.worst(curves, grids[name]) for name, curves in some.items()}
        members = [run for runs in some.values() for run in runs]
        labels = {"ylabel": AXIS_LABELS.get(tag, tag), "title": title, "worst": worst, "colours": colours}
        labels["reference"] = comparison.references(members) if tag in RETURNS else {}
        steps = {runs[0].group: [(run.steps, run.values) for run in runs] for runs in some.values()}
        pictures.append(learning_curves(steps, out / f"curves{suffix}", **labels))
        longest = max(run.hours[-1] for run in members)
        unit, per_hour = ("hours", 1) if longest >= 1 else ("minutes", 60) if longest >= 1 / 60 else ("seconds", 3600)
        hours = {runs[0].group: [(per_hour * run.hours, run.values) for run in runs] for runs in some.values()}
        if timeless := [run.name for run in members if not np.isfinite(run.hours).all()]:
            warn(f"no figure over hours: {timeless[0]} does not say when its values were written")
        else:
            pictures.append(
                learning_curves(hours, out / f"curves_hours{suffix}", xlabel=f"{unit} of training", **labels)
            )
    return pictures


def draw_frontiers(curves: list[Curve], out: Path) -> list[Path]:
    """Robustness against cost, of runs of adversarial training: a picture a task."""
    tasks: dict[str, dict[str, list[Path]]] = {}
    for curve in curves:
        if "method" in curve.settings:
            tasks.setdefault(curve.task, {}).setdefault(curve.group, []).append(Path(curve.name))
    several = {task: groups for task, groups in tasks.items() if len(groups) > 1}
    pictures, reasons = frontier.draw(several, out / "frontier")
    for reason in reasons:
        warn(f"not on a frontier of robustness and cost: {reason}")
    return pictures


def warn(sentence: str) -> None:
    """Say something that is not the result."""
    print(sentence, file=sys.stderr)
