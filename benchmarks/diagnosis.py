"""What scripts/diagnose.py finds of a run, as a record: python benchmarks/diagnosis.py RUN OUT.json

The reports draw it again from there. Curves keep 200 points at most.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from pages import origin

from l2l_experiment import drawings
from l2l_experiment.files import read_mapping
from l2l_experiment.run import Run

POINTS = 200


@dataclass(frozen=True)
class Args:
    """Condense the figures of one run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of train_gail.py or train_at.py with a checkpoint."""
    out: Annotated[Path, tyro.conf.Positional]
    """docs/results/gail/diagnosis_NAME.json or docs/results/at/diagnosis_NAME.json."""


def main() -> None:
    """Diagnose, write."""
    args = tyro.cli(Args)
    torch.set_num_threads(1)
    record = read_mapping(args.run / "record.json")
    if record["kind"] == "gail":
        from l2l_gail.diagnosis import diagnose
    else:
        from l2l_at.diagnosis import diagnose
    found = drawings.plain(diagnose(Run.open(args.run, kind=record["kind"])), POINTS)
    content = {"drawings": found, "command": record["command"]} | origin(record)
    args.out.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def show(content: dict[str, Any], path: Path) -> list[str]:
    """The pictures of a record, drawn beside it; returns the lines that show them on a page a folder above."""
    pictures = drawings.draw(drawings.restored(content["drawings"]), path.parent, prefix=f"{path.stem}_")
    lines = []
    for name, picture in zip(content["drawings"], pictures, strict=True):
        lines += [f"![{content['drawings'][name]['labels']['title']}]({path.parent.name}/{picture.name})", ""]
    return lines[:-1]


if __name__ == "__main__":
    main()
