"""Pages of results, made from their records: what the reports of imitation and of adversarial training share."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from campaign import ROOT

from l2l_experiment.stability import RUNS_FOR_INTERVAL, mean_interval

README = ROOT / "README.md"


def fill(page: str, name: str, lines: list[str]) -> str:
    """The page with new content between the marks of a name."""
    content = "\n".join(lines)
    pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", page, flags=re.DOTALL)


def update(path: Path, contents: dict[str, list[str]]) -> None:
    """Write new content between a page's marks; a name without marks is told."""
    page = path.read_text()
    for name, lines in contents.items():
        if f"<!-- begin {name} -->" not in page:
            print(f"{name}: no place for it in {path.name}")
        page = fill(page, name, lines)
    path.write_text(page)


def gaps(one: dict[int, float], other: dict[int, float]) -> list[float]:
    """One minus other on the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def interval(some: list[float]) -> tuple[float, float, float]:
    """Mean, and Student's t interval of it."""
    middle, half = float(np.mean(some)), mean_interval(some)
    return middle, middle - half, middle + half


def standard_error(share: float, images: int) -> float:
    """Of a share of so many images, in points."""
    return 100 * float(np.sqrt(share * (1 - share) / images))


def difference(one: dict[int, float], other: dict[int, float]) -> str:
    """Mean of one minus other over the seeds that both have, each seed's, and Student's t interval from three on."""
    some = gaps(one, other)
    each = ", ".join(f"{gap:+.1f}" for gap in some)
    reach = "{:+.1f} to {:+.1f}".format(*interval(some)[1:]) if len(some) >= RUNS_FOR_INTERVAL else "–"
    return f"{np.mean(some):+.1f} ({each}) | {reach}"


def origin(record: dict[str, Any]) -> dict[str, Any]:
    """With what a run, or a later session of it, was made."""
    commit = (record.get("git") or {}).get("commit")
    return {"versions": record["versions"], "machine": record["machine"], "commit": commit}


def condense(
    runs: Path, data: Path, extract: Callable[[Path, dict[str, Any]], dict[str, Any]], *, ungraded: bool = False
) -> None:
    """Write what `extract(run's folder, its record)` keeps of the finished runs in RUNS/EXPERIMENT/RUN into
    DATA/EXPERIMENT.json; earlier records stay. `ungraded` takes in runs that ended, too, but were not graded."""
    for experiment in sorted(path for path in runs.iterdir() if path.is_dir()):
        path = data / f"{experiment.name}.json"
        kept = json.loads(path.read_text())["runs"] if path.is_file() else {}
        for run in sorted(experiment.iterdir()):
            record = json.loads((run / "record.json").read_text()) if (run / "record.json").is_file() else {}
            if record.get("status") == "finished" or (ungraded and "result" in record and run.name not in kept):
                kept[run.name] = {"result": record["result"]} | extract(run, record) | origin(record)
                if later := record.get("sessions"):  # it was stopped and went on, on another machine perhaps
                    kept[run.name]["sessions"] = [{"step": one["step"]} | origin(one) for one in later]
        if kept:
            data.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"runs": dict(sorted(kept.items()))}, separators=(",", ":")) + "\n")
