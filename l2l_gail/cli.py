"""The command line of `scripts/train_gail.py`."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
import tyro

from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.flags import value_of
from l2l_experiment.run import Run
from l2l_gail.config import GAILConfig, tuned
from l2l_gail.training import KIND, TrainArgs, stored_args, train


def parse(argv: Sequence[str]) -> TrainArgs:
    """The settings that flags give, over the environment's tuned ones; exits with a message if one is wrong."""
    env = value_of("--env", argv, "HalfCheetah-v4")
    if "--l2l" in argv and value_of("--follower", argv, "l2l") == "adam":
        raise UserError("--l2l is short for --follower l2l and contradicts --follower adam; leave one of them out")
    args = tyro.cli(TrainArgs, args=argv, default=TrainArgs(settings=tuned(env)))
    settings = args.settings
    penalised = settings.gradient_penalty or (settings.follower != "adam" and settings.scoring.gradient_penalty)
    if settings.gradient_target != GAILConfig.gradient_target and not penalised:
        raise UserError("--gradient-target would change nothing without --gradient-penalty")
    return args


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Train by the flags."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    run = None
    if args.resume is not None:
        given = {token.split("=")[0] for token in argv if token.startswith("--")}
        if extra := sorted(given - {"--resume", "--steps", "--device", "--demos"}):
            raise UserError(f"{', '.join(extra)} cannot be given with --resume: the run's own settings hold")
        run, demos = Run.open(args.resume, kind=KIND), args.demos
        args = stored_args(
            run,
            steps=args.steps if "--steps" in given else None,
            device=args.settings.device if "--device" in given else None,
        )
        args = replace(args, demos=demos or args.demos)
    torch.set_num_threads(args.threads)
    train(args, run)
