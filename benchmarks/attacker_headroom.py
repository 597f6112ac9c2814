"""What a learned attacker could gain if the classifier stood still: python benchmarks/attacker_headroom.py RUN…

In training both players move. Here the last weights of each run's classifier (not their average) are held fixed, an
attacker is fitted to them from its hand-designed start for many steps, and compared on held-out images, all from the
same random starts: the attack as it starts, as the run has learned it, as it is after fitting, and PGD."""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch.nn.functional import cross_entropy

from l2l_at import attacks
from l2l_at.attacks import evaluating
from l2l_at.batches import Batch
from l2l_at.methods.residual import Residual
from l2l_at.session import KIND, load_task, stored_args
from l2l_at.trainer import Trainer
from l2l_experiment import checkpoint, provenance
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.run import Run
from l2l_experiment.sweep_files import comparable_settings

NOTE = "Attackers fitted to the classifiers of finished runs, by benchmarks/attacker_headroom.py."


@dataclass(frozen=True)
class Args:
    """Fit attackers to classifiers that stand still."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Runs of l2l, with their checkpoints."""
    steps: int = 1000
    """Adam steps of the fit, with the run's own batch size."""
    rate: float = 5e-3
    """Adam's rate, of all that is learned, falling to nothing along a cosine."""
    draws: int = 5
    """Random starts that each figure is a mean over."""
    out: Path | None = None
    """Write the figures into this JSON file."""


@exit_on_user_error
def main() -> None:
    """Measure every run, print, write."""
    args = tyro.cli(Args)
    torch.set_num_threads(1)
    found = {folder.name: measure(folder, args) for folder in args.runs}
    for run, record in found.items():
        print(run, *(f"{name} {value:.3f}" for name, value in record["result"]["loss"].items()), sep="   ")
    if args.out is not None:
        args.out.write_text(json.dumps({"note": NOTE, "runs": found}, separators=(",", ":")) + "\n")


def measure(folder: Path, args: Args) -> dict[str, Any]:
    """A record with the mean cross-entropy under each attack on the run's last classifier."""
    run = Run.open(folder, kind=KIND)
    stored = stored_args(run)
    stored = replace(stored, settings=replace(stored.settings, device="auto", compile=False))
    task = load_task(stored)
    trainer = Trainer(stored.settings, task)
    if not isinstance(trainer.method.follower, Residual):
        raise UserError(f"{folder} is a run of {stored.settings.method}, which has no residual attacker")
    trainer.load_state_dict(checkpoint.latest(folder)["trainer"])
    model, follower, threat = trainer.model, trainer.method.follower, stored.settings.threat
    held_out = Batch(*task.held_out.to(trainer.device).take(slice(None)))  # no rows: starts are random
    learned, fresh = follower.attacker, Trainer(stored.settings, task).method.follower.attacker

    def loss(perturb) -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            values = [cross_entropy(model(held_out.images + perturb()), held_out.labels) for _ in range(args.draws)]
        return float(torch.stack(values).mean())

    def own(attacker: torch.nn.Module) -> float:
        follower.attacker = attacker
        return loss(lambda: follower.perturb(model, held_out))

    def pgd(steps: int) -> float:
        size = min(1.0, 2.5 / steps)
        return loss(lambda: attacks.pgd(model, *held_out[:2], threat, steps=steps, size=size))

    with evaluating(model):
        losses = {"as it starts": own(copy.deepcopy(fresh)), "as learned": own(learned)}
        follower.attacker = fresh
        fit(trainer, args)
        losses |= {"after fitting": own(fresh), "PGD-2": pgd(2), "PGD-10": pgd(10), "PGD-50": pgd(50)}
    result = {"loss": losses, "fit": {"steps": args.steps, "rate": args.rate, "draws": args.draws}}
    made = {"versions": provenance.versions(), "machine": provenance.machine()}
    commit = (provenance.git_state() or {}).get("commit")
    return {"settings": comparable_settings(run.config), **made, "commit": commit, "result": result, "curves": {}}


def fit(trainer: Trainer, args: Args) -> None:
    """Raise the loss on training batches, the classifier held still."""
    follower, model = trainer.method.follower, trainer.model.requires_grad_(False)
    optimizer = torch.optim.Adam(follower.attacker.parameters(), lr=args.rate, maximize=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for _ in range(args.steps):
        batch = trainer.batches.next()._replace(rows=None)
        delta = follower.answer(model, batch, through="rule")
        optimizer.zero_grad()
        cross_entropy(model(batch.images + delta), batch.labels).backward()
        torch.nn.utils.clip_grad_norm_(follower.attacker.parameters(), max_norm=1.0)
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()
