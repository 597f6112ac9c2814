"""The command line of `scripts/train_follower.py`."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from l2l_experiment import process
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.settings import given_flags, parse
from l2l_gail.followers.pretrained import RULE
from l2l_gail.pretraining.training import PretrainArgs, pretrain, stored_args

WITH_RESUME = {"--resume", "--out", "--inner-runs", "--threads", "--rollouts"}


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Train a rule by the flags."""
    argv = sys.argv[1:] if argv is None else argv
    args, given = parse(PretrainArgs, argv), given_flags(argv)
    args = replace(args, rollouts=args.rollouts and args.rollouts.resolve())  # resuming elsewhere must find the same
    if args.resume:
        if extra := sorted(given - WITH_RESUME):
            raise UserError(f"{', '.join(extra)} cannot be given with --resume: the rule's own settings hold")
        args = stored_args(args, given)
    process.configure(args.threads)
    run = pretrain(args)
    if run.record["status"] != "finished":
        told = shlex.join(["l2l-train-follower", "--out", str(run.folder), "--resume"])
        print(f"Saved after {run.record['inner_runs']} inner runs. Continue with: {told}")
        raise SystemExit(130)
    print(f"Use it: l2l-train-gail --follower l2l-pretrained --follower-from {shlex.quote(str(run.folder / RULE))}")


if __name__ == "__main__":
    main()
