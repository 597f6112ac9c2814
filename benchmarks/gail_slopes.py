"""What the discriminator pays for while a policy begins: python benchmarks/gail_slopes.py

The first steps of runs of `sensitivity` and `no-penalty` (their schedules are those of the whole run), on which the
discriminator is looked at every few rounds: how its logit changes with the robot's forward velocity, which the policy
is to raise, and how steep it is in all directions together. Runs that stand in the record are not made again.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from campaign import ROOT
from tqdm import tqdm

from l2l_experiment import provenance
from l2l_experiment.figures import learning_curves
from l2l_gail.cli import parse
from l2l_gail.gail import GAIL, Pairs
from l2l_gail.training import find_demonstrations

RECORD = ROOT / "docs" / "results" / "gail" / "slopes.json"
VELOCITY = 8  # HalfCheetah-v4's observation of its forward velocity, m/s
EVERY = 4  # rounds between two looks
LOOKS = (50_000, 100_000, 200_000)  # steps that the table tells of
ORDER = ("adam", "l2l", "l2l-rate", "adam with penalty", "l2l with penalty")  # in pictures, where order is colour
COMMON = ["--num-demos", "1", "--disc-updates", "20"]
NO_PENALTY = [*COMMON, "--gradient-penalty", "0"]
RUNS = (
    {f"{who}, 3e-4, seed {seed}": (who, "3e-4", seed, NO_PENALTY) for seed in range(3) for who in ("l2l", "adam")}
    | {"l2l-rate, 3e-4, seed 0": ("l2l-rate", "3e-4", 0, NO_PENALTY)}
    | {f"l2l, {rate}, seed 0": ("l2l", rate, 0, NO_PENALTY) for rate in ("1e-4", "1e-3", "3e-3")}
    | {f"{who} with penalty, 3e-4, seed 0": (who, "3e-4", 0, COMMON) for who in ("l2l", "adam")}
)


@dataclass(frozen=True)
class Args:
    """Look at discriminators while policies begin."""

    steps: int = 200_000
    """Environment steps after which a run is left."""
    only: str = ""
    """Only runs whose name holds this."""
    out: Path = RECORD
    """The JSON file that the figures are added to."""


class Watched(GAIL):
    """GAIL that notes what its discriminator is like, right after each answer."""

    looks: list[dict[str, float]]

    def respond(self, rollout: Pairs, progress: float) -> dict[str, float]:
        """As GAIL's; every few rounds a look is added to `looks`."""
        figures = super().respond(rollout, progress)
        if (self.ppo.num_timesteps // (self.config.num_envs * self.config.round_steps)) % EVERY == 0:
            look = {"step": self.ppo.num_timesteps, "velocity": float(rollout[0][:, VELOCITY].mean())}
            self.looks.append(look | slopes(self, rollout) | {"log_rate": figures.get("follower/log_rate", 0.0)})
        return figures


def slopes(gail: GAIL, rollout: Pairs) -> dict[str, float]:
    """Means over the rollout: the logit's derivative in the forward velocity and the norm of all its derivatives, both
    in the units that the discriminator sees, and the logit itself; and its mean over the demonstrations."""
    inputs = gail.transitions(rollout).requires_grad_()
    logits = gail.discriminator(inputs)
    (gradient,) = torch.autograd.grad(logits.sum(), inputs)
    with torch.no_grad():
        return {
            "slope": float(gradient[:, VELOCITY].mean()),
            "steepness": float(gradient.norm(dim=1).mean()),
            "logit": float(logits.mean()),
            "logit_std": float(logits.std()),
            "logit_of_demonstrations": float(gail.discriminator(gail.transitions(gail.train_pairs)).mean()),
        }


def main() -> None:
    """Make what is missing, one run after the other, and keep each as it ends."""
    args = tyro.cli(Args)
    torch.set_num_threads(1)
    record = json.loads(args.out.read_text()) if args.out.is_file() else {"slopes": {}}
    todo = {name: run for name, run in RUNS.items() if args.only in name and name not in record["slopes"]}
    for name, (who, rate, seed, flags) in tqdm(todo.items(), unit=" runs"):
        flags = [*flags, "--follower", who, "--disc-rate", rate, "--seed", str(seed)]
        record["slopes"][name] = {"flags": flags, "looks": watch(flags, args.steps)} | {
            "machine": provenance.machine(),
            "versions": provenance.versions(),
            "git": provenance.git_state(),
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, separators=(",", ":")) + "\n")


def watch(flags: list[str], steps: int) -> list[dict[str, float]]:
    """The looks at one run's discriminator."""
    args = parse(flags)
    demonstrations, monitor = find_demonstrations(args)
    gail = Watched(args.settings, demonstrations, monitor=monitor)
    gail.looks = []

    class Enough(Exception):
        pass

    def enough(gail: GAIL) -> None:
        if gail.ppo.num_timesteps >= steps:
            raise Enough

    with contextlib.suppress(Enough):
        gail.learn(args.steps, on_round=enough)
    return [{key: float(f"{value:.5g}") for key, value in look.items()} for look in gail.looks]


def look_at(looks: list[dict[str, float]], step: int) -> dict[str, float]:
    """The look that was taken nearest to a step."""
    return min(looks, key=lambda look: abs(look["step"] - step))


def table(record: dict[str, Any], ended: Callable[[str, float, int, bool], float | None]) -> list[str]:
    """One row a run; `ended` tells what a follower's whole run made in the end, by rate, seed and penalty."""
    heads = ["run", *(f"{what} at {step // 1000}k" for what in ("steepness", "slope") for step in LOOKS)]
    heads += [f"velocity at {LOOKS[-1] // 1000}k, m/s", "% of expert after 1M"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, run in record["slopes"].items():
        who, rate, seed, flags = RUNS[name]
        looks = [look_at(run["looks"], step) for step in LOOKS]
        percent = ended(who, float(rate), seed, flags is COMMON)
        cells = [name, *(f"{look[what]:.1f}" for what in ("steepness", "slope") for look in looks)]
        cells += [f"{looks[-1]['velocity']:.2f}", "–" if percent is None else f"{percent:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(record: dict[str, Any], stem: Path) -> list[str]:
    """Slope and steepness over steps of the runs at 3e-4; returns the lines that show them."""
    groups: dict[str, list[Any]] = {}
    for name, run in record["slopes"].items():
        if RUNS[name][1] == "3e-4":
            groups.setdefault(name.split(",")[0], []).append(run["looks"])
    lines = []
    for key, label in (("slope", "logit's slope in forward velocity"), ("steepness", "norm of the logit's gradient")):
        curves = {
            name: [tuple(np.array([look[column] for look in looks]) for column in ("step", key)) for looks in some]
            for name, some in sorted(groups.items(), key=lambda group: ORDER.index(group[0]))
        }
        title = "HalfCheetah-v4, 1 demonstration, rate 3e-4"
        png, _ = learning_curves(curves, stem.with_name(f"{stem.name}_{key}"), ylabel=label, title=title)
        lines += [f"![{label}](gail/{png.name})", ""]
    return lines[:-1]


if __name__ == "__main__":
    main()
