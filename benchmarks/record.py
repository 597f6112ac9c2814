"""Make records of finished runs: python benchmarks/record.py runs/gail

FOLDER/EXPERIMENT/RUN goes into docs/results/KIND/EXPERIMENT.json, in place of a run with the same settings; the others
stay. With --diagnosis NAME the folder is one run, of which scripts/diagnose.py has drawn RUN/diagnosis."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from records import RESULTS, ROOT

from l2l_experiment import drawings, metrics
from l2l_experiment.errors import UserError, exit_on_user_error
from l2l_experiment.files import read_mapping
from l2l_experiment.sweep_cli import settings_key
from l2l_experiment.sweep_files import comparable_settings

# Figures of which curves are kept, and how many points of each.
CURVES = {
    "gail": {"rollout/ep_rew_mean": 100}
    | dict.fromkeys(
        (
            "train_disc/acc",
            "train_disc/heldout_acc",
            "train_disc/heldout_loss",
            "train_disc/logit_std",
            "train_follower/rate",
            "train_follower/log_rate",
        ),
        34,
    ),
    "at": {"robust/pgd10": 60}
    | dict.fromkeys(
        ("train_classifier/loss", "robust/clean", "robust/train_fgsm", "robust/train_pgd10", "train_attacker/strength"),
        20,
    ),
}
ALARM = "robust/collapsed"


@dataclass(frozen=True)
class Args:
    """Keep what tables and figures need of finished runs."""

    folder: Annotated[Path, tyro.conf.Positional]
    """OUT of scripts/sweep.py; with --diagnosis, a run."""
    out: Path = RESULTS
    """Folder of the records."""
    ungraded: bool = False
    """Take in runs, too, that were trained to their end but not graded."""
    diagnosis: str | None = None
    """Record the diagnosis of a run as OUT/KIND/diagnosis_NAME.json instead."""


@exit_on_user_error
def main() -> None:
    """Read, write, tell how many."""
    args = tyro.cli(Args)
    if args.diagnosis is not None:
        record = read_mapping(args.folder / "record.json")
        write(args.out / record["kind"] / f"diagnosis_{args.diagnosis}.json", diagnosis(args.folder, record))
        return
    found: dict[Path, dict[str, Any]] = {}
    for path in sorted(args.folder.glob("*/*/record.json")):
        record = read_mapping(path)
        if record["kind"] in CURVES and (record["status"] == "finished" or (args.ungraded and "result" in record)):
            target = args.out / record["kind"] / f"{path.parents[1].name}.json"
            found.setdefault(target, {})[path.parent.name] = of_run(path.parent, record, args.folder)
    if not found:
        raise UserError(f"{args.folder} holds no finished run in a folder of an experiment: FOLDER/EXPERIMENT/RUN")
    for target, runs in found.items():
        content = read_mapping(target) if target.is_file() else {"runs": {}}
        write(target, content | {"runs": merged(content["runs"], runs)})
        print(f"{target.relative_to(ROOT) if target.is_relative_to(ROOT) else target}: {len(runs)} runs")


def of_run(folder: Path, record: dict[str, Any], root: Path) -> dict[str, Any]:
    """The record of a finished run; paths in its settings are told from `root` on, others by their last name."""
    settings = dict(comparable_settings(read_mapping(folder / "config.yaml")))
    for name, value in settings.items():
        if isinstance(value, str) and value.startswith("/"):
            inside = Path(value).is_relative_to(root.resolve())
            settings[name] = value.removeprefix(f"{root.resolve()}/") if inside else Path(value).name
    rows = metrics.read(folder / metrics.METRICS) if (folder / metrics.METRICS).is_file() else []
    result = dict(record["result"])
    if "training_seconds" in record:  # beside other runs, perhaps
        result["training_seconds"] = round(record["training_seconds"], 1)
    if record["kind"] == "at":
        raised = [(row["step"], bool(row[ALARM])) for row in rows if np.isfinite(row.get(ALARM, np.nan))]
        result["alarms"] = [step for step, alarm in raised if alarm]
        result["alarm_at_end"] = bool(raised) and raised[-1][1]
    curves = {tag: curve(rows, tag, points) for tag, points in CURVES[record["kind"]].items()}
    kept = {"settings": settings, **origin(record), "result": result}
    kept |= {"curves": {tag: points for tag, points in curves.items() if points[0]}}
    if later := record.get("sessions"):  # it was stopped and went on, on another machine perhaps
        kept["sessions"] = [{"step": one["step"], **origin(one)} for one in later]
    return kept


def origin(record: dict[str, Any]) -> dict[str, Any]:
    """With what a run, or a later session of it, was made."""
    commit = (record.get("git") or {}).get("commit")
    return {"versions": record["versions"], "machine": record["machine"], "commit": commit}


def curve(rows: list[dict[str, Any]], tag: str, most: int) -> list[list[float]]:
    """Steps and values of a figure, at most so many points, five digits; the last one is among them."""
    points = [(row["step"], row[tag]) for row in rows if np.isfinite(row.get(tag, np.nan))]
    if len(points) > most:
        places = np.linspace(0, len(points) - 1, most).round().astype(int)
        points = [points[place] for place in places]
    return [[step for step, _ in points], [float(f"{value:.5g}") for _, value in points]]


def merged(kept: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """Runs with those of new settings added; one with settings that are there already takes its place and name."""
    names = {settings_key(run["settings"]): name for name, run in kept.items()}
    placed = {names.get(settings_key(run["settings"]), name): run for name, run in made.items()}
    return dict(sorted((kept | placed).items()))


def diagnosis(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The figures that scripts/diagnose.py found, up to 200 points each, and the command that made the run."""
    found = drawings.from_plain(read_mapping(run / "diagnosis" / drawings.FILE))
    return {"drawings": drawings.plain(found, 200), "command": anywhere(record["command"]), **origin(record)}


def anywhere(command: str) -> str:
    """The command of a run as it is given in a checkout, without the folder that the run went to."""
    program, script, *flags = shlex.split(command)
    if "--run-dir" in flags:
        place = flags.index("--run-dir")
        del flags[place : place + 2]
    where = [script] if script == "-m" else [f"scripts/{Path(script).name}"]
    return shlex.join([Path(program).name, *where, *flags])


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
