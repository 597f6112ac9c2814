"""The command `diagnose`: pictures that show why a run went as it did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from l2l_compare.curves import TASK
from l2l_compare.figures import learning_curves, overview
from l2l_experiment import drawings, process
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import make_folder, read_mapping
from l2l_experiment.run import RECORD, Run
from l2l_experiment.settings import flatten_config, parse
from l2l_experiment.tools import TOOLS, module


@dataclass(frozen=True)
class Args:
    """Figures of one run: its discriminator and learned rule, or its attacker's strength beside PGD's."""

    run: Annotated[Path, tyro.conf.Positional]  # Folder of a run of train_gail.py or train_at.py with a checkpoint
    env: str | None = None  # Only for a run whose environment's id names a module to import: that id again
    demos: str | None = None  # Where the demonstrations of a run of train_gail.py are now, if they have moved
    out: Path | None = None
    """Folder for the pictures and the numbers behind them (diagnosis.json); by default RUN/diagnosis."""


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Draw, and say where."""
    args = parse(Args, argv)
    process.configure()
    kind = read_mapping(args.run / RECORD).get("kind")
    if kind not in TOOLS:
        raise UserError(f"{args.run} holds a run of kind {kind!r}; name one of train_gail.py or train_at.py")
    run = Run.open(args.run, kind=kind)
    found = module(kind, "diagnosis").diagnose(run, args.env, args.demos)
    out = args.out or args.run / "diagnosis"
    make_folder(out)
    drawings.save(found, out)
    pictures = [learning_curves(drawing.curves, out / name, **drawing.labels) for name, drawing in found.items()]
    if len(found) > 1:
        panels = {name: {"groups": drawing.curves, **drawing.labels} for name, drawing in found.items()}
        pictures.append(overview(panels, out / "overview", title_of(run)))
    for name, drawing in found.items():
        if verdict := drawing.labels.get("verdict"):
            print(f"{name}: {verdict}")
    print("\n".join(map(str, pictures)))


def title_of(run: Run) -> str:
    """What a run is, by its settings."""
    known = flatten_config(run.config)
    return ", ".join(f"{name} {known[name]}" for name in (*TASK, "follower", "method", "seed") if name in known)
