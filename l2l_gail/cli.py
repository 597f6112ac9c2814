"""The command line of `scripts/train_gail.py`."""

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from l2l_experiment import process, settings
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.run import Run
from l2l_experiment.settings import given_flags, reject_unused, value_of
from l2l_gail.config import GAILConfig, defaults, tuned
from l2l_gail.followers import resolve_config
from l2l_gail.leaders import LEADERS
from l2l_gail.session import GROUPS, KIND, TrainArgs, absolute_path, stored_args, train

DISC_PREFIXES = (
    "follower",
    "disc_",
    "gradient_p",
    "gradient_t",
    "spectral",
    "entropy",
    "mixup",
    "label",
    "replay",
    "reward",
)
DISC_PREFIXES += ("imitate", "every", "absorbing", "holdout", "score_", "freeze", "log_rate")
OF_SESSION = ("eval_episodes", "eval_every", "checkpoint_every", "threads")  # what no part of the training depends on
WITH_RESUME = {"--resume", "--steps", "--device", "--demos", "--env"} | {
    "--" + name.replace("_", "-") for name in OF_SESSION
}


def parse(argv: Sequence[str]) -> TrainArgs:
    """The settings that flags give, over the environment's tuned ones; exits with a message if one is wrong."""
    env = value_of("--env", argv, "HalfCheetah-v4")
    if "--l2l" in argv and (follower := value_of("--follower", argv, "l2l")) != "l2l":
        raise UserError(f"--l2l is short for --follower l2l and contradicts --follower {follower}; leave one out")
    leader = value_of("--leader", argv, "ppo")
    default = TrainArgs(settings=tuned(env, leader if leader in LEADERS else "ppo"))
    args = settings.parse(TrainArgs, argv, default=default, groups=GROUPS)
    if args.reward_from is not None:
        if args.follower_from is not None:
            raise UserError("--follower-from would change nothing with --reward-from: nothing learns the reward")
        args = replace(args, settings=policy_only(args.settings, cloning=args.demos is not None))
    # Absolute paths: resuming from another folder must find the same files.
    follower, reward = (path and path.resolve() for path in (args.follower_from, args.reward_from))
    paths = {"follower_from": follower, "reward_from": reward, "demos": absolute_path(args.demos)}
    return replace(args, settings=resolve_config(args.settings), **paths)


def policy_only(config: GAILConfig, *, cloning: bool) -> GAILConfig:
    """The settings for training a policy on another run's reward; UserError if settings of a discriminator are given.
    `cloning` False, without demonstrations: `bc_epochs` is refused too, and becomes 0."""
    of_discriminator = frozenset(field.name for field in fields(GAILConfig) if field.name.startswith(DISC_PREFIXES))
    idle = of_discriminator - {"every"} if cloning else of_discriminator | {"bc_epochs"}
    reject_unused(config, defaults(config), idle, "with --reward-from")
    return config if cloning else replace(config, bc_epochs=0)


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Train by the flags."""
    argv = sys.argv[1:] if argv is None else argv
    args, run = parse(argv), None
    if args.resume is not None:
        given = given_flags(argv)
        if extra := sorted(given - WITH_RESUME):
            raise UserError(f"{', '.join(extra)} cannot be given with --resume: the run's own settings hold")
        run, asked = Run.open(args.resume, kind=KIND), args
        steps = asked.steps if "--steps" in given else None
        device, env = (getattr(asked.settings, n) if f"--{n}" in given else None for n in ("device", "env"))
        args = stored_args(run, steps, device, env=env)
        if env not in (None, args.settings.env):
            raise UserError(
                f"--env {env} cannot be given with --resume: the run's own environment is {args.settings.env}"
            )
        if asked.demos is None and args.demos and Path(args.demos).is_absolute() and not Path(args.demos).exists():
            raise UserError(f"the run's demonstrations are no longer in {args.demos}; say where they are with --demos")
        of_session = {name: getattr(asked, name) for name in OF_SESSION if "--" + name.replace("_", "-") in given}
        args = replace(args, demos=asked.demos or args.demos, **of_session)
    process.configure(args.threads)
    train(args, run)


if __name__ == "__main__":
    main()
