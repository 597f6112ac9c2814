"""Compare runs, ours or anybody's TensorBoard folders: python scripts/compare.py runs/* --by follower"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import joblib
import numpy as np
import tyro

from l2l_at import frontier
from l2l_experiment import board, comparison
from l2l_experiment.curves import Curve, read
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.figures import learning_curves
from l2l_experiment.files import file_name, make_folder, write_atomically

REPORTS = Path(__file__).resolve().parents[1] / "benchmarks"
RECORDS = REPORTS.parent / "docs" / "results"
MANY = 20


@dataclass(frozen=True)
class Args:
    """Curves, reliability and probability of improvement of groups of runs, with intervals."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs; one that cannot be read is named and left out."""
    by: tuple[str, ...] = ()
    """Settings that make a group, e.g. follower, or env follower; by default the folder's name without its seed."""
    tag: str | None = None
    """The figure to compare, as TensorBoard names it, of which more is better; by default the return, or the held-out
    PGD-10 accuracy."""
    unfinished: bool = False
    """Take in runs of ours that are not finished, logs that are cut off, as far as they reach, and logs with several
    values for one step, of which the later counts."""
    records: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Make the tables and figures of README and docs anew from this project's records: --from docs/results."""
    out: Path = Path("comparison")
    """Folder for table.md, comparison.json, curves and curves_hours (.png, .svg), tensorboard/ and, of graded runs of
    adversarial training, frontier; of several tasks a picture each."""


@exit_on_user_error
def main() -> None:
    """Read, compare, write."""
    args = tyro.cli(Args)
    if args.records is not None:
        if args.runs:
            raise UserError("--from makes the project's own pages anew and takes no runs beside it")
        return remake(args.records)
    make_folder(args.out)
    # Event files are slow to read: many of them on all cores.
    folders = list({folder.resolve(): folder for folder in args.runs}.values())
    cores = -1 if len(folders) >= MANY else 1
    found = joblib.Parallel(n_jobs=cores)(joblib.delayed(attempt)(folder, args) for folder in folders)
    curves = [curve for curve in found if isinstance(curve, Curve)]
    for reason in found:
        if isinstance(reason, str):
            print(f"left out: {reason}", file=sys.stderr)
    if not curves:
        raise UserError("there is no run to compare; name the folders of runs")
    if len(tags := sorted({curve.tag for curve in curves})) > 1:
        raise UserError(f"the runs log different figures ({', '.join(tags)}); choose one with --tag")
    for curve in curves:
        if curve.doubled:
            print(f"{curve.name} logged {curve.doubled} steps twice; the later value counts", file=sys.stderr)
        if curve.missing:
            print(
                f"{curve.name}: {curve.missing} values between others are no finite numbers; a line bridges them",
                file=sys.stderr,
            )
    if "" in (tasks := {curve.task for curve in curves}) and len(tasks) > 1:
        named = " or ".join(sorted(tasks - {""}))
        told = f"taken to be of {named}" if len(tasks) == 2 else f"not compared with those of {named}"
        print(f"folders of other tools do not name their task: they are {told}", file=sys.stderr)
    curves, apart = comparison.overlapping(comparison.of_one_task(curves))
    for curve in apart:
        first, last = (f"{step:,.0f}" for step in curve.steps[[0, -1]])
        print(f"left out: {curve.name} covers steps {first} to {last}, which others do not share", file=sys.stderr)
    if not curves:
        raise UserError("no run has two values; there is nothing to compare")
    groups = comparison.grouped(curves)
    grids = comparison.grids(groups)
    worst = {name: comparison.worst(members, grids[name]) for name, members in groups.items()}
    content = {"tag": tags[0]} | comparison.table(groups)
    for task, found in content["tasks"].items():
        if found["ends_first"]:
            last = f"step {found['steps'][1]:,.0f}"
            print(f"{found['ends_first']} ends at {last}: {task or 'all runs'} compared up to there", file=sys.stderr)
    text = comparison.markdown(content)
    write_atomically(args.out / "table.md", text.encode())
    write_atomically(args.out / "comparison.json", (json.dumps(content, indent=1) + "\n").encode())
    pictures = draw_curves(groups, worst, tags[0], args.out)
    board.write(args.out / "tensorboard", groups, grids, tags[0])
    pictures += draw_frontiers(curves, args.out)
    print(text)
    written = ", ".join(["table.md, comparison.json", *(path.name for path in pictures)])
    print(f"{args.out}: {written}; tensorboard --logdir {args.out}/tensorboard")


def draw_curves(groups: dict[str, list[Curve]], worst: dict[str, int], tag: str, out: Path) -> list[Path]:
    """Learning curves over steps and, where every run says when it wrote its values, over hours: of several tasks a
    picture each, in which a group has one colour."""
    for old in (*out.glob("curves*.png"), *out.glob("curves*.svg")):
        old.unlink()
    tasks, pictures = comparison.by_task(groups), []
    colours = sorted({curves[0].group for curves in groups.values()})
    for task, some in tasks.items():
        several = len(tasks) > 1
        suffix, title = ("_" + file_name(task), f"{task}: {tag}") if several else ("", tag)
        shown = {curves[0].group: curves for curves in some.values()}
        lowest = {curves[0].group: worst[name] for name, curves in some.items()}
        labels = {"ylabel": tag, "title": title, "worst": lowest, "colours": colours}
        steps = {name: [(curve.steps, curve.values) for curve in members] for name, members in shown.items()}
        pictures += learning_curves(steps, out / f"curves{suffix}", **labels)
        runs = [curve for members in shown.values() for curve in members]
        if timeless := [curve.name for curve in runs if not np.isfinite(curve.hours).all()]:
            print(f"no figure over hours: {timeless[0]} does not say when its values were written", file=sys.stderr)
        else:
            hours = {name: [(curve.hours, curve.values) for curve in members] for name, members in shown.items()}
            pictures += learning_curves(hours, out / f"curves_hours{suffix}", xlabel="hours", **labels)
    return pictures


def draw_frontiers(curves: list[Curve], out: Path) -> list[Path]:
    """Robustness against cost, of runs of adversarial training: a picture a task."""
    for old in (*out.glob("frontier*.png"), *out.glob("frontier*.svg")):
        old.unlink()
    tasks: dict[str, dict[str, list[Path]]] = {}
    for curve in curves:
        if "method" in curve.settings:
            tasks.setdefault(curve.task, {}).setdefault(curve.group, []).append(Path(curve.name))
    several = {task: groups for task, groups in tasks.items() if len(groups) > 1}
    pictures, reasons = frontier.draw(several, out / "frontier")
    for reason in reasons:
        print(f"not on a frontier of robustness and cost: {reason}", file=sys.stderr)
    return pictures


def attempt(folder: Path, args: Args) -> Curve | str:
    """A run's curve, or why there is none."""
    try:
        return read(folder, tag=args.tag, by=args.by, unfinished=args.unfinished)
    except UserError as error:
        return str(error)
    except (
        OSError,
        ValueError,
        TypeError,
        OverflowError,
    ) as error:  # whatever else a damaged folder does, the others are compared
        return f"{folder} cannot be read ({error})"


def remake(records: Path) -> None:
    """Make the tables and figures of README and docs anew, each page by the report in benchmarks/ that knows it."""
    if records.resolve() != RECORDS:
        raise UserError(f"{records} does not hold this project's records; they are in {RECORDS}")
    for report in sorted(REPORTS.glob("*_report.py")):
        if code := subprocess.run([sys.executable, str(report)]).returncode:
            raise UserError(f"{report} failed (exit code {code}); its last lines above say on what")


if __name__ == "__main__":
    main()
