"""The command line of `scripts/train_follower.py`."""

import sys
from collections.abc import Sequence

import torch

from l2l_experiment.errors import exit_on_user_error
from l2l_experiment.settings import parse
from l2l_gail.pretraining.training import PretrainArgs, pretrain


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Train a rule by the flags."""
    args = parse(PretrainArgs, sys.argv[1:] if argv is None else argv)
    torch.set_num_threads(args.threads)
    run = pretrain(args)
    if run.record["status"] != "finished":
        print(f"Saved after {run.record['lives']} lives. Continue by adding --resume")
        raise SystemExit(130)
    print(f"Use it: l2l-train-gail --l2l --follower-from {run.folder} --freeze-follower")


if __name__ == "__main__":
    main()
