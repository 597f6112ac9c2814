"""Why a run went as it did: what the training attack is worth beside PGD of 1 to 50 steps."""

from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from l2l_at import attacks
from l2l_at.batches import Batch
from l2l_at.session import load_task, stored_args
from l2l_at.trainer import Trainer
from l2l_experiment import checkpoint, metrics
from l2l_experiment.drawings import Drawing
from l2l_experiment.errors import UserError
from l2l_experiment.run import Run

STEPS = (1, 2, 3, 5, 7, 10, 20, 50)
IMAGES = 256
CURVES = {
    "strength": (
        "the training attack's share",
        {
            "of PGD-10's loss": "train_attacker/strength",
            "of what PGD-10 adds to the loss": "train_attacker/gain",
            "of the radius": "train_attacker/norm",
        },
    ),
    "accuracy": (
        "accuracy",
        {
            "held out, clean": "robust/clean",
            "held out, PGD-10": "robust/pgd10",
            "training, one step": "robust/train_fgsm",
            "training, PGD-10": "robust/train_pgd10",
        },
    ),
}


def diagnose(run: Run, env: str | None = None, demos: str | None = None) -> dict[str, Drawing]:
    """The figures of a finished or running adversarial training, by name; it has no `env` and no `demos`."""
    for name, given in (("env", env), ("demos", demos)):
        if given is not None:
            raise UserError(f"--{name} would change nothing: {run.folder} is adversarial training")
    rows, args = metrics.read(run.folder / metrics.METRICS), stored_args(run)
    config, found = args.settings, {}
    name = f"{config.dataset}, {config.method}, {config.threat}, seed {config.seed}"
    for stem, (label, tags) in CURVES.items():
        if curves := {title: [tuple(curve)] for title, curve in metrics.curves_of(rows, tags).items()}:
            last = ", ".join(f"{title} {values[-1]:.2f}" for title, ((_, values),) in curves.items())
            words = {"ylabel": label, "title": f"{name}: {stem}", "count": False, "verdict": f"at the end: {last}"}
            found[stem] = Drawing(curves, words)
    task = load_task(args)
    # It may have been trained on another machine.
    trainer = Trainer(replace(args.settings, device="auto", compile=False), task)
    trainer.load_state_dict(checkpoint.latest(run.folder)["trainer"])
    return found | {"ladder": attack_strength(trainer, *task.held_out.subset(slice(0, IMAGES)).take(slice(None)))}


def pgd_losses(trainer: Trainer, x: torch.Tensor, y: torch.Tensor) -> tuple[dict[int, float], float, float]:
    """The loss under PGD by its number of steps, that under the training attack, in evaluation mode, and the size of
    its largest perturbation over the radius: N-FGSM's leave the ball. All start at random, as on images never seen."""
    model, threat = trainer.model, trainer.config.threat

    @torch.no_grad()
    def loss(delta: torch.Tensor) -> float:
        return float(cross_entropy(model(x + delta), y))

    with attacks.evaluating(model):
        # Steps of 2.5 radii in all, as Madry et al. (2018) choose them; one step goes all the way.
        pgd = {k: loss(attacks.pgd(model, x, y, threat, steps=k, size=min(1.0, 2.5 / k))) for k in STEPS}
        own = trainer.method.follower.perturb(model, Batch(x, y))
        return pgd, loss(own), float(threat.size(own).max()) / threat.radius


def attack_strength(trainer: Trainer, x: torch.Tensor, y: torch.Tensor) -> Drawing:
    """The training attack as a level among PGD's."""
    x, y, start = x.to(trainer.device), y.to(trainer.device), trainer.method.follower.start
    pgd, own, largest = pgd_losses(trainer, x, y)
    name = trainer.config.method + (" without its memory" if start is not None and start.name == "last" else "")
    if largest > 1.001:
        name += f" (up to {largest:.1f} ε)"
    with attacks.evaluating(trainer.model):
        clean = attacks.accuracy(trainer.model, x, y)
    stronger = [steps for steps, value in pgd.items() if value >= own]
    told = f"as strong as PGD with {stronger[0]} steps" if stronger else f"stronger than PGD with {STEPS[-1]} steps"
    labels = {
        "verdict": f"the training attack is {told}",
        "ylabel": "loss on held-out images",
        "title": f"{trainer.config.method} beside PGD, last checkpoint (clean accuracy {clean:.0%})",
        "xlabel": "steps of PGD from random starts",
        "reference": {name: own},
        "count": False,
    }
    return Drawing({"PGD": [(list(pgd), list(pgd.values()))]}, labels)
