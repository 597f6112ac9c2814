"""The runs behind docs/results/at.md: python benchmarks/at_experiments.py --jobs 2

Each run is trained and then graded on the whole test set, with AutoAttack's standard tier for the first table of
methods and its quick one elsewhere. Runs that are finished or stand in docs/results/at/EXPERIMENT.json are skipped,
runs that were cut off are resumed.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import joblib
import tyro
from at_variants import VARIANTS, flags
from campaign import ROOT, Experiments, choose, run_all
from tqdm import tqdm

from l2l_at.methods import METHODS
from l2l_experiment import sweeps

RECORDS = ROOT / "docs" / "results" / "at"
SEEDS = range(5)
RADII = ("0.1", "0.2")
FIRST = ("standard", "fgsm-rs", "pgd", "l2l", "l2l-naive", "l2l-grad", "l2l-2step")

# What is taken away from or changed in the learned attacker, at the radius at which one step is not enough. As it is,
# and frozen, it stands among the runs of `digits` and `frozen`: for the sweeps of rates and lengths below, too.
ABLATIONS = {
    "scales-only": ["--attacker-sees"],
    "network-only": ["--attacker-scale-rate", "0"],
    "random-start": ["--attack-start", "random"],
    "random-start-frozen": ["--attack-start", "random", "--freeze-attacker"],
    "zero-start": ["--attack-start", "zero"],
    "zero-start-frozen": ["--attack-start", "zero", "--freeze-attacker"],
    "no-gradient": ["--attacker-sees", "image", "delta"],
    "no-image": ["--attacker-sees", "gradient", "delta"],
    "no-delta": ["--attacker-sees", "image", "gradient"],
    "1-step": ["--attack-steps", "1", "--attack-size", "1.25"],
    "1-step-frozen": ["--attack-steps", "1", "--attack-size", "1.25", "--freeze-attacker"],
    "3-steps": ["--attack-steps", "3", "--attack-size", "0.6"],
    "3-steps-frozen": ["--attack-steps", "3", "--attack-size", "0.6", "--freeze-attacker"],
    "size-0.5": ["--attack-size", "0.5"],
    "size-1.0": ["--attack-size", "1.0"],
    "every-batch": ["--attacker-every", "1"],
    "every-16th": ["--attacker-every", "16"],
    "batch-scale": ["--gradient-scale", "batch"],
    "sign-steps": ["--method", "pgd-2", "--attack-start", "last", "--attack-size", "0.75"],
}
SCALE_RATES = ("0", "0.003", "0.01", "0.1")
BAT_RATES = ("7.84", "30", "100", "300", "1000")
LENGTHS = ("0.02", "0.05", "0.2", "3")
RATES = {
    "frozen": ["--freeze-attacker"],
    "rate-3e-4": ["--attacker-rate", "3e-4"],
    "rate-1e-3": ["--attacker-rate", "1e-3"],
    "rate-5e-3": ["--attacker-rate", "5e-3"],
    "rate-2e-2": ["--attacker-rate", "2e-2"],
}


def cifar(model: str, eps: str, method: str) -> list[str]:
    """Flags of a run on CIFAR-10; of the published attackers the slim one, for a network of this size."""
    flags = ["--dataset", "cifar10", "--model", model, "--eps", eps, "--epochs", "30", "--method", method]
    slim = ["--attacker", "slim"] if method in ("l2l-grad", "l2l-2step") else []
    return [*flags, *slim, "--probe-every", "5", "--grade", "quick", "--seed", "0"]


def cifar_short(model: str, eps: int, seed: int, flags: list[str]) -> list[str]:
    """Flags of a short run on CIFAR-10: larger batches, fewer epochs, 500 test images."""
    budget = ["--epochs", "15", "--batch-size", "256", "--ema", "0.998", "--grade", "quick", "--grade-images", "500"]
    task = ["--dataset", "cifar10", "--model", model, "--eps", f"{eps}/255", "--seed", str(seed)]
    return [*task, *budget, "--probe-every", "3", "--checkpoint-every", "15", *flags]


def experiments(tier: str = "standard") -> Experiments:
    """Flags of every run, by experiment and name of the run; `tier` is what the first tables are graded with."""
    full = ["--dataset", "digits", "--grade", tier, "--grade-images", "360"]
    quick = ["--dataset", "digits", "--grade", "quick", "--grade-images", "360"]
    return {
        "digits": {
            f"{method}_{eps}_s{seed}": [*full, "--method", method, "--eps", eps, "--seed", str(seed)]
            for seed in SEEDS
            for eps in RADII
            for method in FIRST
        },
        "zoo": {
            f"{method}_{eps}_s{seed}": [*quick, "--method", method, "--eps", eps, "--seed", str(seed)]
            for seed in SEEDS
            for eps in RADII
            for method in METHODS
            if method not in FIRST
        }
        | {
            f"{name}_{eps}_s{seed}": [*quick, *flags(settings), "--eps", eps, "--seed", str(seed)]
            for seed in SEEDS
            for eps in RADII
            for name, settings in VARIANTS.items()
            if name != "frozen"
        },
        # FAST-BAT's step presumes gradients of the size that CIFAR's have. Other seeds than those of the tables.
        "bat-rate": {
            f"eta-{rate}_0.2_s{seed}": ["--dataset", "digits", "--method", "fast-bat", "--bat-rate", rate]
            + ["--eps", "0.2", "--seed", str(seed)]
            for seed in (10, 11)
            for rate in BAT_RATES
        },
        "frozen": {
            f"frozen_{eps}_s{seed}": [*full, "--freeze-attacker", "--eps", eps, "--seed", str(seed)]
            for seed in SEEDS
            for eps in RADII
        },
        # For a GPU: 30 epochs, graded quick on all 10,000 test images.
        "cifar10-resnet18": {
            f"{method}_8_s0": cifar("resnet18", "8/255", method)
            for method in ("pgd", "fgsm-rs", "l2l", "l2l-grad", "l2l-2step")
        },
        "cifar10-preact": {
            f"{method}_{eps}_s0": cifar("preactresnet18", f"{eps}/255", method)
            for eps in (8, 16)
            for method in ("fgsm-rs", "n-fgsm", "fast-bat", "l2l", "l2l-grad", "pgd-2", "pgd", "trades", "arow")
        },
        "cifar10-short": {
            f"{name}_{eps}_s{seed}": cifar_short("resnet18" if eps == 8 else "preactresnet18", eps, seed, flags)
            for seed in range(3)
            for eps, name, flags in (
                (8, "pgd", ["--method", "pgd"]),
                (8, "l2l", ["--method", "l2l"]),
                (8, "fgsm-rs", ["--method", "fgsm-rs"]),
                (16, "l2l", ["--method", "l2l"]),
                (16, "fgsm-rs", ["--method", "fgsm-rs"]),
                (8, "frozen", ["--freeze-attacker"]),
            )
        },
        # A small network on few images of the real thing: shows that CIFAR trains on a CPU, not how well.
        "cifar-cpu": {
            f"{dataset}_l2l_s0": ["--dataset", dataset, "--model", "preact-tiny", "--subset", "4000", "--epochs", "5"]
            + ["--probe-every", "5", "--probe-images", "200", "--seed", "0"]
            for dataset in ("cifar10", "cifar100")
        },
        "norms": {
            f"{method}_{norm}_{eps}_s{seed}": [*quick, "--method", method, "--norm", norm, "--eps", eps]
            + ["--seed", str(seed)]
            for seed in range(3)
            for norm, eps in (("l2", "0.5"), ("l1", "2"))
            for method in ("ro", "pgd")
        },
        # A radius so large that one step is not enough: where catastrophic overfitting shows on digits.
        "collapse": {
            f"{method}_0.3_s{seed}": [*quick, "--method", method, "--eps", "0.3", "--seed", str(seed)]
            for seed in range(3)
            for method in ("ro", "fgsm-rs", "n-fgsm", "grad-align", "fast-bat", "l2l", "pgd")
        },
        "ablation": {
            f"{name}_s{seed}": [*quick, "--eps", "0.2", *changes, "--seed", str(seed)]
            for seed in range(3)
            for name, changes in ABLATIONS.items()
        },
        "attacker-rate": {
            f"{name}_{eps}_s{seed}": [*quick, "--eps", eps, *changes, "--seed", str(seed)]
            for seed in range(3)
            for eps in RADII
            for name, changes in RATES.items()
            if name not in ("frozen", "rate-1e-3")
        },
        # A step length that nobody tuned: what the attacker makes of it, and what it is when nothing is learned.
        "step-length": {
            f"{name}-{size}_{eps}_s{seed}": [*quick, "--eps", eps, "--attack-size", size, *changes, "--seed", str(seed)]
            for seed in range(3)
            for eps in RADII
            for size in LENGTHS
            for name, changes in (("l2l", []), ("frozen", ["--freeze-attacker"]))
        },
        # What learns the step length has a rate of its own; the default, 0.03, stands among other experiments' runs.
        "scale-rate": {
            f"scale-{rate}_size-{size}_s{seed}": [*quick, "--eps", "0.2", "--attack-size", size]
            + ["--attacker-scale-rate", rate, "--seed", str(seed)]
            for seed in range(3)
            for size in ("0.05", "0.75")
            for rate in SCALE_RATES
        },
        # How the method was before attacks went on from the last perturbation and steps learned their length.
        "random-start": {
            f"{name}_{eps}_s{seed}": [*quick, "--attack-start", "random", "--eps", eps, *changes, "--seed", str(seed)]
            + ([] if name == "frozen" else ["--attacker-scale-rate", "0"])
            for seed in range(3)
            for eps in RADII
            for name, changes in RATES.items()
        },
    }


@dataclass(frozen=True)
class Args:
    """Make the runs of docs/results/at.md."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (
        "digits",
        "frozen",
        "bat-rate",
        "zoo",
        "norms",
        "collapse",
        "ablation",
        "step-length",
        "attacker-rate",
        "scale-rate",
        "random-start",
    )
    """Experiments to run, in this order."""
    jobs: int = 2
    """Runs side by side, one thread each."""
    out: Path = Path("runs/at")
    """Where the runs go: OUT/EXPERIMENT/RUN."""
    data_dir: Path | None = None
    """Folder with the official CIFAR files, for the experiments on CIFAR."""
    only: str = ""
    """Only runs whose name holds this."""
    again: bool = False
    """Make runs again that stand in docs/results/at/."""
    tier: Literal["quick", "standard"] | None = None
    """quick: grade with the quick tier for now. standard: grade runs in OUT again that were graded for now."""


def main() -> None:
    """Run what is not finished yet."""
    args = tyro.cli(Args)
    data = [] if args.data_dir is None else ["--data-dir", str(args.data_dir)]
    everything = choose(experiments("quick" if args.tier == "quick" else "standard"), args.names)
    chosen = {
        name: {run: flags if "digits" in flags else [*flags, *data] for run, flags in runs.items()}
        for name, runs in everything.items()
    }
    if args.tier == "standard":
        grade_again({name: [run for run in runs if args.only in run] for name, runs in chosen.items()}, args)
        return
    run_all("train_at.py", chosen, out=args.out, records=RECORDS, jobs=args.jobs, only=args.only, again=args.again)


def grade_again(runs: dict[str, list[str]], args: Args) -> None:
    """Grade finished runs with the standard tier that have the quick one's grade though they are to have the other."""
    full = [
        args.out / name / run
        for name in runs
        for run in runs[name]
        if wanted(experiments()[name][run]) == "standard" and graded(args.out / name / run) == "quick"
    ]
    command = [sys.executable, str(ROOT / "scripts" / "grade_at.py"), "--tier", "standard"]

    def make(folder: Path) -> None:
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            subprocess.run([*command, str(folder)], check=True, stdout=log, stderr=log)

    joblib.Parallel(n_jobs=args.jobs, backend="threading")(joblib.delayed(make)(f) for f in tqdm(full, unit=" runs"))


def wanted(flags: list[str]) -> str:
    """The tier that a run's flags ask for."""
    return flags[flags.index("--grade") + 1] if "--grade" in flags else "none"


def graded(folder: Path) -> str | None:
    """The tier of a finished run's grade."""
    if sweeps.status(folder) != "finished":
        return None
    return json.loads((folder / "record.json").read_text())["result"].get("grade", {}).get("tier")


if __name__ == "__main__":
    main()
