"""The runs behind docs/results/gail.md: python benchmarks/gail_experiments.py --jobs 2

Runs that are finished or stand in docs/results/gail/EXPERIMENT.json are skipped, runs that were cut off are resumed, so
the command can be given again at any time.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from campaign import ROOT, Experiments, run_all

RECORDS = ROOT / "docs" / "results" / "gail"
SEEDS = range(3)
RATES = ("3e-5", "3e-4", "3e-3")

TASKS = ("Hopper-v4", "Walker2d-v4")


def task(env: str, seed: int) -> list[str]:
    """Flags of a run on one of the other tasks."""
    return ["--env", env, "--num-demos", "10", "--seed", str(seed)]


def stress(few: list[str], follower: str, seed: int) -> list[str]:
    """Flags of a long run without gradient penalty."""
    unpenalised = ["--disc-rate", "1e-3", "--gradient-penalty", "0", "--steps", "2000000"]
    return [*few, *unpenalised, "--follower", follower, "--seed", str(seed)]


def experiments() -> Experiments:
    """Flags of every run, by experiment and name of the run."""
    learned = ("adam", "l2l")
    few = ["--num-demos", "1", "--disc-updates", "20"]
    return {
        "main": {
            f"{follower}_s{seed}": ["--env", "HalfCheetah-v4", "--follower", follower, "--seed", str(seed)]
            for seed in SEEDS
            for follower in learned
        },
        "rates": {
            f"{follower}_{rate}_s{seed}": [*few, "--follower", follower, "--disc-rate", rate, "--seed", str(seed)]
            for seed in SEEDS
            for rate in RATES
            for follower in (*learned, "l2l-rate")
        },
        "filter": {
            f"adam_running_s{seed}": ["--filter", "running", "--follower", "adam", "--seed", str(seed)]
            for seed in SEEDS
        },
        "stress": {f"{follower}_s{seed}": stress(few, follower, seed) for seed in SEEDS for follower in learned}
        | {"l2l-unsmoothed_s0": [*stress(few, "l2l", 0), "--score-smoothing", "0"]},
        "tasks": {
            f"{env}_{follower}_s{seed}": [*task(env, seed), "--follower", follower]
            for seed in SEEDS
            for env in TASKS
            for follower in learned
        },
        "cloning": {f"{env}_adam_s{seed}": [*task(env, seed), "--steps", "0"] for seed in SEEDS for env in TASKS},
        "constant": {f"{env}_adam_s0": [*task(env, 0), "--reward", "constant"] for env in TASKS},
        "scratch": {f"{env}_adam_s0": [*task(env, 0), "--bc-epochs", "0"] for env in TASKS},
    }


@dataclass(frozen=True)
class Args:
    """Make the runs of docs/results/gail.md."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(experiments())
    """Experiments to run, in this order."""
    jobs: int = 2
    """Runs side by side, one thread each."""
    out: Path = Path("runs/gail")
    """Where the runs go: OUT/EXPERIMENT/RUN."""
    only: str = ""
    """Only runs whose name holds this."""
    again: bool = False
    """Make runs again that stand in docs/results/gail/."""


def main() -> None:
    """Run what is not finished yet."""
    args = tyro.cli(Args)
    everything = experiments()
    if unknown := set(args.names) - set(everything):
        sys.exit(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(everything)}")
    chosen = {name: everything[name] for name in args.names}
    run_all("train_gail.py", chosen, out=args.out, records=RECORDS, jobs=args.jobs, only=args.only, again=args.again)


if __name__ == "__main__":
    main()
