"""Many runs of one script, side by side: what is finished is skipped, what was cut off is resumed."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]

Experiments = dict[str, dict[str, list[str]]]  # flags of every run, by experiment and name of the run


def run_all(
    script: str, experiments: Experiments, *, out: Path, records: Path, jobs: int, only: str = "", again: bool = False
) -> None:
    """Make every run whose name holds `only` in OUT/EXPERIMENT/RUN; exits with a message if one fails.

    Runs that stand in RECORDS/EXPERIMENT.json are skipped too, unless `again`.
    """
    todo = [
        (out / name / run, flags)
        for name, runs in experiments.items()
        for run, flags in runs.items()
        if only in run and status(out / name / run) != "finished" and (again or run not in recorded(records, name))
    ]
    print(f"{len(todo)} runs to make")
    with ThreadPoolExecutor(jobs) as pool:
        codes = pool.map(partial(make, script), *zip(*todo, strict=True)) if todo else []
        failed = [str(folder) for (folder, _), code in zip(todo, codes, strict=True) if code]
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


def recorded(records: Path, experiment: str) -> list[str]:
    """Names of the runs whose figures are kept."""
    path = records / f"{experiment}.json"
    return list(json.loads(path.read_text())["runs"]) if path.is_file() else []


def status(folder: Path) -> str:
    """What a run's record says of it; 'none' if there is no record."""
    record = folder / "record.json"
    return json.loads(record.read_text())["status"] if record.is_file() else "none"


def make(script: str, folder: Path, flags: list[str]) -> int:
    """Make or resume one run; its output goes into FOLDER.log."""
    resumable = any(folder.glob("checkpoints/step_*"))
    if not resumable and folder.exists():  # killed before its first checkpoint: out of the way, but not thrown away
        folder.rename(folder.with_name(f"{folder.name}.cut-off-{time.time_ns()}"))
    arguments = ["--resume", str(folder)] if resumable else [*flags, "--run-dir", str(folder)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(folder.suffix + ".log").open("a") as log:
        command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
        code = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    ended = status(folder)
    print(f"{folder}: {ended}" + (f" (exit code {code}, see {log.name})" if code else ""), flush=True)
    return code or int(ended != "finished")
