"""The runs behind a page of results: those that stand in its records are not made again."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2l_experiment import sweeps

ROOT = Path(__file__).parents[1]
MOST_NAMED = 8  # settings of which nothing, or not all, was run

Experiments = dict[str, dict[str, list[str]]]  # flags of every run, by experiment and name of the run


def choose(experiments: Experiments, names: Sequence[str]) -> Experiments:
    """The named experiments, in this order; exits with a message if there is none of a name."""
    if unknown := set(names) - set(experiments):
        sys.exit(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(experiments)}")
    return {name: experiments[name] for name in names}


def run_all(
    script: str, experiments: Experiments, *, out: Path, records: Path, jobs: int, only: str = "", again: bool = False
) -> None:
    """Make every run whose name holds `only` in OUT/EXPERIMENT/RUN; exits with a message if one fails.

    `{out}` in a flag stands for OUT, for runs that take something from another one. Runs that stand in
    RECORDS/EXPERIMENT.json are skipped, unless `again`.
    """
    todo = [
        sweeps.Job(
            ROOT / "scripts" / script, out / name / run, tuple(flag.replace("{out}", str(out)) for flag in flags)
        )
        for name, runs in experiments.items()
        for run, flags in runs.items()
        if only in run and (again or run not in recorded(records, name))
    ]
    if failed := sweeps.run(todo, workers=jobs):
        sys.exit(f"not finished: {', '.join(str(job.folder) for job in failed)}")


def recorded(records: Path, experiment: str) -> dict[str, Any]:
    """The runs whose figures are kept, by name."""
    path = records / f"{experiment}.json"
    return json.loads(path.read_text())["runs"] if path.is_file() else {}


def coverage(experiments: Experiments, records: Path) -> list[str]:
    """What of the listed runs stands in the records: a row for each experiment that lacks some."""
    lines = ["| experiment | runs made | listed | not made (number of seeds) |", "|---|---|---|---|"]
    for name, runs in experiments.items():
        made = recorded(records, name).keys() & runs.keys()
        missing = Counter(run.rsplit("_s", 1)[0] for run in runs if run not in made)
        if missing:
            told = [f"{group} ({count})" for group, count in missing.items()][:MOST_NAMED]
            rest = [f"and {len(missing) - len(told)} more settings"] if len(missing) > len(told) else []
            lines.append(f"| `{name}` | {len(made)} | {len(runs)} | {', '.join(told + rest)} |")
    return lines
