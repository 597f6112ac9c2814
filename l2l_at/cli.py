"""The command lines of `scripts/train_at.py` and `scripts/grade_at.py`."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from l2l_at import parallel
from l2l_at.arguments import KIND, TrainArgs, stored_args
from l2l_at.config import tuned
from l2l_at.grading import Tier, grade_folder, says_more
from l2l_at.methods import METHODS
from l2l_at.threat import Norm
from l2l_at.trainer import resolve_device
from l2l_at.training import follow, train
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.flags import value_of
from l2l_experiment.run import Run


def parse(argv: Sequence[str]) -> TrainArgs:
    """The settings that flags give, over the data set's tuned ones; exits with a message if one is wrong."""
    args = tyro.cli(TrainArgs, args=argv, default=TrainArgs(settings=tuned(value_of("--dataset", argv, "digits"))))
    given = _named(argv)
    if "--norm" in given and args.settings.norm != "linf" and not {"--eps", "--resume"} & given:
        raise UserError(f"--norm {args.settings.norm} needs --eps: the default radius is one of linf")
    if args.grade_images is not None and args.tier == "none":
        raise UserError("--grade-images would change nothing without --grade quick or standard")
    if args.data_dir is not None and args.settings.dataset == "digits" and args.resume is None:
        raise UserError("--data-dir would change nothing: digits come with scikit-learn")
    return args


def _named(argv: Sequence[str]) -> set[str]:
    return {token.split("=")[0] for token in argv if token.startswith("--")}


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Train by the flags."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    if args.list:
        print("\n".join(f"{name:12} {recipe}" for name, recipe in METHODS.items()))
        return
    run = None
    if args.resume is not None:
        if extra := sorted(_named(argv) - {"--resume", "--device", "--data-dir"}):
            raise UserError(f"{', '.join(extra)} cannot be given with --resume: the run's own settings hold")
        run, given = Run.open(args.resume, kind=KIND), args
        args = stored_args(run)
        if given.data_dir is not None:
            args = replace(args, data_dir=given.data_dir)
        if "--device" in _named(argv):
            args = replace(args, settings=replace(args.settings, device=given.settings.device))
    torch.set_num_threads(args.threads)
    done = run is not None and run.record.get("status") == "finished"
    with nullcontext() if done else parallel.group(resolve_device(args.settings.device)):
        train(args, run) if parallel.rank() == 0 else follow(args, run)


@dataclass(frozen=True)
class GradeArgs:
    """Attack a trained classifier with code that is not ours, on test images."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run's folder (its best classifier), or a folder with model.safetensors and card.json."""
    tier: Tier = "quick"
    """quick: APGD-CE and APGD-T; standard: all four attacks of AutoAttack. Both with foolbox's PGD-50 beside them."""
    images: int | None = None
    """Only the first so many test images; by default all."""
    norm: Norm | None = None
    """Norm of the threat model; by default that of the training."""
    eps: str | None = None
    """Radius, a number or a fraction such as 8/255; by default that of the training."""
    seed: int = 0
    """Seed of the attacks."""
    data_dir: Path | None = None
    """Folder with the official CIFAR files; without it they are fetched into a cache."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to attack."""
    threads: int = 1
    """CPU threads of torch."""


@exit_on_user_error
def grade_main(argv: list[str] | None = None) -> None:
    """Parse the flags and grade."""
    args = tyro.cli(GradeArgs, args=argv)
    for name, value in (("images", args.images), ("threads", args.threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    torch.set_num_threads(args.threads)
    run = Run.open(args.path, kind=KIND) if (args.path / "record.json").is_file() else None
    with nullcontext() if run is None else run.held():  # a run that is still training replaces its classifier
        record = grade_folder(
            args.path,
            tier=args.tier,
            images=args.images,
            seed=args.seed,
            norm=args.norm,
            eps=args.eps,
            data_dir=args.data_dir,
            device=resolve_device(args.device),
        )
        if run is not None and args.norm is None and args.eps is None:  # the threat model that it was trained for
            keep_grade(run, record)


def keep_grade(run: Run, grade: dict[str, Any]) -> None:
    """Put a grade into a run's record if it says more than the one that stands there."""
    result = run.record.get("result", {})
    if says_more(grade, result.get("grade")):
        run.update(result=result | {"grade": grade})
