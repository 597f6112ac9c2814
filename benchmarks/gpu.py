"""So many minutes of a machine with a GPU: python benchmarks/gpu.py --minutes 12 --out DIR [--data-dir FOLDER]

Two sweeps side by side, in the order of benchmarks/gpu.yml: adversarial training on the GPU, a run at a time, and
imitation on the other cores. What stands in the records is skipped, what DIR holds unfinished goes on. Finished runs
are recorded at once, in DIR/records; a while before the time is up everything is asked to save and stop."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from records import RESULTS, ROOT

from l2l_experiment.errors import exit_on_user_error
from l2l_experiment.files import read_mapping
from l2l_experiment.settings import Positive, check


@dataclass(frozen=True)
class Args:
    """Use a GPU machine's time to the end."""

    out: Path
    """Folder of the runs and of their records."""
    minutes: Positive = 12
    """Time for everything."""
    data_dir: Path | None = None
    """Folder with the official CIFAR files; by default they are fetched."""
    plan: Path = Path(__file__).with_name("gpu.yml")
    """Which experiments, in which order."""
    stop_seconds: Positive = 60
    """How long before the end runs are asked to save and stop."""
    look_seconds: Positive = 10
    """Time between two looks for finished runs."""
    jobs: int | None = None
    """Imitations side by side; by default one a core, but for two cores."""

    def __post_init__(self) -> None:
        check(self)


@exit_on_user_error
def main() -> None:
    """Start both sweeps, record what they finish, stop them in time."""
    args = tyro.cli(Args)
    end = time.monotonic() + 60 * args.minutes
    plan, sweeps = read_mapping(args.plan), {}
    jobs = {"at": 1, "gail": args.jobs or max((os.cpu_count() or 1) - 2, 1)}
    for tool, names in plan.items():
        command = [sys.executable, ROOT / "scripts/sweep.py", ROOT / f"benchmarks/{tool}.yml", *names]
        command += ["--out", args.out / tool, "--records", RESULTS / tool, "--jobs", str(jobs[tool])]
        if tool == "at" and args.data_dir is not None:
            command += ["--data-dir", args.data_dir]
        sweeps[tool] = subprocess.Popen(command)
    while time.monotonic() < end - args.stop_seconds and any(sweep.poll() is None for sweep in sweeps.values()):
        time.sleep(max(min(args.look_seconds, end - args.stop_seconds - time.monotonic()), 0))
        record(args.out, plan)
    for sweep in sweeps.values():
        if sweep.poll() is None:
            sweep.send_signal(signal.SIGINT)
    for sweep in sweeps.values():
        try:
            sweep.wait(max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:  # the second time a sweep does not wait for its runs
            sweep.send_signal(signal.SIGINT)
            sweep.wait()
    record(args.out, plan, tell=True)


def record(out: Path, tools: dict[str, list[str]], *, tell: bool = False) -> None:
    """Record what is finished; before anything is, there is nothing to `tell`."""
    for tool in tools:
        command = [sys.executable, ROOT / "benchmarks/record.py", out / tool, "--out", out / "records"]
        subprocess.run(command, capture_output=not tell, check=False)


if __name__ == "__main__":
    main()
