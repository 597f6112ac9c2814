"""Draw why a run went as it did: python scripts/diagnose.py runs/NAME"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from l2l_experiment.drawings import save
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import make_folder, read_mapping
from l2l_experiment.run import Run


@dataclass(frozen=True)
class Args:
    """Figures of one run: its discriminator and learned rule, or its attacker's strength beside PGD's."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of train_gail.py or train_at.py with a checkpoint."""
    out: Path | None = None
    """Folder for the pictures and the numbers behind them (diagnosis.json); by default RUN/diagnosis."""


@exit_on_user_error
def main() -> None:
    """Draw, and say where."""
    args = tyro.cli(Args)
    torch.set_num_threads(1)
    kind = read_mapping(args.run / "record.json").get("kind")
    if kind == "gail":
        from l2l_gail.diagnosis import diagnose
    elif kind == "at":
        from l2l_at.diagnosis import diagnose
    else:
        raise UserError(f"{args.run} holds a run of kind {kind!r}; name one of train_gail.py or train_at.py")
    out = args.out or args.run / "diagnosis"
    make_folder(out)
    for picture in save(diagnose(Run.open(args.run, kind=kind)), out):
        print(picture)


if __name__ == "__main__":
    main()
