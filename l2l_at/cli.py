"""The commands that train and grade: `l2l-train-at` and `l2l-grade-at`, or a script for data of one's own."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from l2l_at import methods, parallel
from l2l_at.config import tuned
from l2l_at.export import BEST
from l2l_at.grading import Tier, grade_folder, save_grade
from l2l_at.session import GROUPS, KIND, TrainArgs, stored_args, train, train_worker
from l2l_at.threat import Norm, Threat
from l2l_experiment import devices, process, settings
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.run import Run
from l2l_experiment.settings import Count, Seed, Threads, given_flags, value_of


def parse(argv: Sequence[str]) -> TrainArgs:
    """The settings that flags give, over the data set's tuned ones; exits with a message if one is wrong."""
    usual = TrainArgs(settings=tuned(value_of("--dataset", argv, "digits")))
    args = settings.parse(TrainArgs, argv, default=usual, groups=GROUPS)
    given = given_flags(argv)
    if "--norm" in given and args.settings.norm != "linf" and not {"--eps", "--resume"} & given:
        raise UserError(f"--norm {args.settings.norm} needs --eps: the default radius is one of linf")
    if args.grade_images is not None and args.tier == "none":
        raise UserError("--grade-images would change nothing without --grade quick or standard")
    methods.check(args.settings)
    # Resuming from another folder must find the same files.
    data, attacker = (path and path.resolve() for path in (args.data_dir, args.attacker_from))
    return replace(args, data_dir=data, attacker_from=attacker)


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Train by the flags."""
    argv = sys.argv[1:] if argv is None else argv
    args, run = parse(argv), None
    if args.list:
        print("\n".join(f"{name:12} {recipe}" for name, recipe in methods.METHODS.items()))
        return
    if args.resume is not None:
        given = given_flags(argv)
        if extra := sorted(given - {"--resume", "--device", "--data-dir"}):
            raise UserError(f"{', '.join(extra)} cannot be given with --resume: the run's own settings hold")
        run, flags = Run.open(args.resume, kind=KIND), args
        args = stored_args(run)
        args = replace(args, data_dir=flags.data_dir or args.data_dir)
        if "--device" in given:
            args = replace(args, settings=replace(args.settings, device=flags.settings.device))
    process.configure(args.threads)
    done = run is not None and run.record.get("status") == "finished"
    with nullcontext() if done else parallel.group(devices.resolve(args.settings.device, auto="cuda")):
        train(args, run) if parallel.rank() == 0 else train_worker(args, run)


@dataclass(frozen=True)
class GradeArgs:
    """Attack a trained classifier with code that is not ours, on test images."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run's folder (its best classifier), or a folder with model.safetensors and card.json."""
    tier: Tier = "quick"  # APGD-CE and APGD-T (quick) or all of AutoAttack (standard), and foolbox's PGD-50 beside them
    images: Count | None = None  # Only the first so many test images; by default all
    norm: Norm | None = None  # Norm of the threat model; by default that of the training
    eps: str | None = None  # Radius, a number or a fraction such as 8/255; by default that of the training
    seed: Seed = 0  # Seed of the attacks
    data_dir: Path | None = None  # Folder with the official CIFAR files; without it they are fetched into a cache
    device: str = "auto"  # Where to attack: auto, cpu or cuda
    threads: Threads = 1  # CPU threads of torch

    def __post_init__(self) -> None:
        settings.check(self)


@exit_on_user_error
def grade_main(argv: list[str] | None = None) -> None:
    """Grade by the flags."""
    args = settings.parse(GradeArgs, argv)
    process.configure(args.threads)
    folder = args.path.parent if args.path.name == BEST else args.path
    run = Run.open(folder, kind=KIND) if (folder / "record.json").is_file() else None
    with nullcontext() if run is None else run.locked():  # a run that is still training replaces its classifier
        kwargs = {name: value for name, value in vars(args).items() if name not in ("path", "device", "threads")}
        record = grade_folder(args.path, **kwargs, device=devices.resolve(args.device, auto="cuda"))
        if run is not None and Threat(record["norm"], record["radius"]) == stored_args(run).settings.threat:
            save_grade(run, record)


if __name__ == "__main__":
    main()
