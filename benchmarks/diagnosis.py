"""What scripts/diagnose.py found of a run, as a record: python benchmarks/diagnosis.py RUN OUT.json

The reports draw it again from there. Curves keep 200 points at most.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pages import origin

from l2l_experiment import drawings
from l2l_experiment.files import read_mapping

POINTS = 200


@dataclass(frozen=True)
class Args:
    """Condense the figures of one diagnosed run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run for which scripts/diagnose.py has drawn RUN/diagnosis."""
    out: Annotated[Path, tyro.conf.Positional]
    """docs/results/gail/diagnosis_NAME.json or docs/results/at/diagnosis_NAME.json."""


def main() -> None:
    """Thin, write."""
    args = tyro.cli(Args)
    record = read_mapping(args.run / "record.json")
    found = drawings.restored(json.loads((args.run / "diagnosis" / drawings.FILE).read_text()))
    content = {"drawings": drawings.plain(found, POINTS), "command": anywhere(record["command"])} | origin(record)
    args.out.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def anywhere(command: str) -> str:
    """The command of a run as it is given in a checkout, without the folder that the run went to."""
    program, script, *flags = shlex.split(command)
    if "--run-dir" in flags:
        place = flags.index("--run-dir")
        del flags[place : place + 2]
    return shlex.join([program, f"scripts/{Path(script).name}", *flags])


def show(content: dict[str, Any], path: Path) -> list[str]:
    """The pictures of a record, drawn beside it; returns the lines that show them on a page a folder above."""
    pictures = drawings.draw(drawings.restored(content["drawings"]), path.parent, prefix=f"{path.stem}_")
    lines = []
    for name, picture in zip(content["drawings"], pictures, strict=True):
        lines += [f"![{content['drawings'][name]['labels']['title']}]({path.parent.name}/{picture.name})", ""]
    return lines[:-1]


if __name__ == "__main__":
    main()
