"""The runs behind docs/results/gail.md: python benchmarks/gail_experiments.py --jobs 2

Runs that are finished or stand in docs/results/gail/EXPERIMENT.json are skipped, runs that were cut off are resumed, so
the command can be given again at any time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from campaign import ROOT, Experiments, choose, run_all

RECORDS = ROOT / "docs" / "results" / "gail"
SEEDS = range(3)
MORE_SEEDS = range(3, 5)
RATES = ("3e-5", "3e-4", "3e-3")
TASKS = ("Hopper-v4", "Walker2d-v4")
FOLLOWERS = ("adam", "l2l")
FEW = ["--num-demos", "1", "--disc-updates", "20"]
# What a rule without penalty was scored on, and from where it saw weights, before figures asked for another default.
SMOOTHED = ["--score-penalty", "0", "--score-smoothing", "0.2", "--follower-anchored", "False"]


def task(env: str, seed: int) -> list[str]:
    """Flags of a run on one of the other tasks."""
    return ["--env", env, "--num-demos", "10", "--seed", str(seed)]


def stress(follower: str, seed: int, steps: int = 2_000_000, rate: str = "1e-3", penalty: str = "0") -> list[str]:
    """Flags of a long run, by default without gradient penalty."""
    settings = ["--disc-rate", rate, "--gradient-penalty", penalty, "--steps", str(steps)]
    return [*FEW, *settings, "--follower", follower, "--seed", str(seed)]


def boundary() -> dict[str, list[str]]:
    """3M steps where plain GAIL may break: rates a hundred times apart, a penalty, and a rule kept within limits."""
    sides = {"": {}, "_slow": {"rate": "1e-4"}, "_fast": {"rate": "3e-3"}, "_1_gp1": {"penalty": "1"}}
    sides["_tiny"] = {"rate": "3e-5"}
    limited = {
        f"l2l-limited_fast_s{seed}": [*stress("l2l", seed, 3_000_000, rate="3e-3"), "--log-rate-limit", "100"]
        for seed in SEEDS
    }
    return limited | {
        f"{follower}{name}_s{seed}": stress(follower, seed, 3_000_000, **change)
        for seed in SEEDS
        for name, change in sides.items()
        for follower in FOLLOWERS
    }


def rates() -> dict[str, list[str]]:
    """Rates a hundred times apart; more seeds of the one at which Adam's differ most."""
    runs = [(rate, seed, who) for seed in SEEDS for rate in RATES for who in (*FOLLOWERS, "l2l-rate")]
    runs += [("3e-5", seed, who) for seed in MORE_SEEDS for who in FOLLOWERS]
    return {
        f"{who}_{rate}_s{seed}": [*FEW, "--follower", who, "--disc-rate", rate, "--seed", str(seed)]
        for rate, seed, who in runs
    }


def meta() -> dict[str, list[str]]:
    """The learned rule's own settings, around their defaults, with seeds on which nothing was designed."""
    changes = {
        "as-it-is": [],
        "log-rate-0.01": ["--log-rate-rate", "0.01"],
        "log-rate-0.2": ["--log-rate-rate", "0.2"],
        "network-1e-4": ["--follower-rate", "1e-4"],
        "network-1e-2": ["--follower-rate", "1e-2"],
    }
    return {
        f"l2l_{name}_{rate}_s{seed}": [*FEW, "--follower", "l2l", "--disc-rate", rate, *flags, "--seed", str(seed)]
        for seed in (10, 11)
        for rate in ("3e-5", "3e-4")
        for name, flags in changes.items()
    }


def sensitivity() -> dict[str, list[str]]:
    """Five rates, with and without penalty, one demonstration and four; what `rates` has is not listed again."""
    return {
        f"{follower}_{demos}_gp{penalty}_{rate}_s{seed}": ["--num-demos", demos, "--disc-updates", "20"]
        + ["--gradient-penalty", penalty, "--follower", follower, "--disc-rate", rate, "--seed", str(seed)]
        for seed in SEEDS
        for penalty in ("1", "0")
        for demos in ("1", "4")
        for rate in ("3e-5", "1e-4", "3e-4", "1e-3", "3e-3")
        for follower in FOLLOWERS
        if not (demos == "1" and penalty == "1" and rate in RATES)
    }


def no_penalty() -> dict[str, list[str]]:
    """Learned rules for a discriminator without penalty, beside those of `sensitivity`, which are as they ship."""
    start = [*FEW, "--gradient-penalty", "0"]
    changes = {
        "l2l-smoothed": ["--follower", "l2l", *SMOOTHED],
        "l2l-penalty": ["--follower", "l2l", "--follower-anchored", "False"],
        "l2l-anchored": ["--follower", "l2l", "--score-penalty", "0", "--score-smoothing", "0.2"],
        "l2l-rate": ["--follower", "l2l-rate"],
    }
    return {
        f"{name}_{rate}_s{seed}": [*start, *flags, "--disc-rate", rate, "--seed", str(seed)]
        for seed in SEEDS
        for name, flags in changes.items()
        for rate in ("3e-5", "1e-4", "3e-4", "1e-3", "3e-3")
    }


def grid() -> dict[str, list[str]]:
    """Tasks by demonstrations, penalty and follower, five seeds; what `main` and `tasks` have is not listed again."""
    return {
        f"{env}_{follower}_{demos}_gp{penalty}_s{seed}": ["--env", env, "--num-demos", demos, "--seed", str(seed)]
        + ["--gradient-penalty", penalty, "--follower", follower]
        for seed in range(5)
        for demos in ("4", "1", "10")
        for env in ("HalfCheetah-v4", *TASKS)
        for penalty in ("1", "0")
        for follower in FOLLOWERS
        if not (seed in SEEDS and penalty == "1" and demos == ("4" if env == "HalfCheetah-v4" else "10"))
    }


def ablation() -> dict[str, list[str]]:
    """The learned rule with parts taken away, where it has something to learn: at a rate that is too small.

    The carried rules come from runs of HalfCheetah with the targets' settings and other seeds, which must still lie in
    the same folder (else: --again).
    """
    start = [*FEW, "--follower", "l2l", "--disc-rate", "3e-5"]
    changes = {
        "l2l-zero-head": ["--freeze-follower"],
        "l2l-no-holdout": ["--holdout", "0"],
        "l2l-every-step": ["--follower-steps", "1"],
        "l2l-every-10": ["--follower-steps", "10"],
    }
    runs = {
        f"{name}_s{seed}": [*start, *flags, "--seed", str(seed)] for seed in SEEDS for name, flags in changes.items()
    }
    # First in the list: the last runs take their rules.
    sources = {f"l2l-source_s{seed + 3}": [*task("HalfCheetah-v4", seed + 3), "--follower", "l2l"] for seed in SEEDS}
    carried = {
        f"{env}_l2l-carried_s{seed}": [*task(env, seed), "--follower", "l2l", "--freeze-follower", "--follower-from"]
        + [f"{{out}}/ablation/l2l-source_s{seed + 3}"]
        for seed in SEEDS
        for env in TASKS
    }
    return sources | runs | carried


def experiments() -> Experiments:
    """Flags of every run, by experiment and name of the run."""
    return {
        "main": {
            f"{follower}_s{seed}": ["--env", "HalfCheetah-v4", "--follower", follower, "--seed", str(seed)]
            for seed in SEEDS
            for follower in FOLLOWERS
        },
        "rates": rates(),
        "filter": {
            f"adam_running_s{seed}": ["--filter", "running", "--follower", "adam", "--seed", str(seed)]
            for seed in SEEDS
        },
        "stress": {f"adam_s{seed}": stress("adam", seed) for seed in SEEDS}
        | {f"l2l_s{seed}": [*stress("l2l", seed), *SMOOTHED] for seed in SEEDS}
        | {"l2l-unsmoothed_s0": [*stress("l2l", 0), *SMOOTHED, "--score-smoothing", "0"]}
        | {f"l2l-anchored_s{seed}": stress("l2l", seed) for seed in SEEDS},
        "tasks": {
            f"{env}_{follower}_s{seed}": [*task(env, seed), "--follower", follower]
            for seed in SEEDS
            for env in TASKS
            for follower in FOLLOWERS
        },
        "cloning": {f"{env}_adam_s{seed}": [*task(env, seed), "--steps", "0"] for seed in SEEDS for env in TASKS},
        "constant": {f"{env}_adam_s0": [*task(env, 0), "--reward", "constant"] for env in TASKS},
        "sensitivity": sensitivity(),
        "no-penalty": no_penalty(),
        "boundary": boundary(),
        "meta": meta(),
        "grid": grid(),
        "ablation": ablation(),
        "scratch": {
            f"{env}_{follower}_s0": [*task(env, 0), "--bc-epochs", "0", "--follower", follower]
            for env in TASKS
            for follower in FOLLOWERS
        },
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
    chosen = choose(experiments(), args.names)
    run_all("train_gail.py", chosen, out=args.out, records=RECORDS, jobs=args.jobs, only=args.only, again=args.again)


if __name__ == "__main__":
    main()
