"""Many runs of one training script: what is finished is skipped, what was cut off is resumed.

Each run is a process of its own with one thread; joblib hands them out, on this machine or over a Ray cluster whose
machines share the folder. What a sweep's runs are: `sweep_files`.
"""

import contextlib
import functools
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import joblib
from tqdm import tqdm

from l2l_experiment.errors import UserError
from l2l_experiment.interrupt import StopRequest
from l2l_experiment.run import LOCK
from l2l_experiment.tools import TOOLS

Backend = Literal["local", "ray"]
POLL = 1.0  # seconds between two looks at the runs


@dataclass(frozen=True)
class Job:
    """One run: a training tool (gail, at) or a Python file, the folder that the run goes into, and its flags."""

    script: str
    folder: Path
    flags: tuple[str, ...]

    @property
    def program(self) -> list[str]:
        """The command without flags."""
        return [sys.executable, *(["-m", f"{TOOLS[self.script]}.cli"] if self.script in TOOLS else [self.script])]


def run(jobs: Sequence[Job], *, workers: int = -1, backend: Backend = "local", address: str | None = None) -> list[Job]:
    """Make every job that is not finished, `workers` at a time (-1: one a core); returns those that failed.

    On Ctrl-C or SIGTERM every run saves and stops, and then the process exits with code 130. A second Ctrl-C does not
    wait for them.
    """
    if workers == 0:
        raise UserError("0 runs side by side make none; give a number of runs, or -1 for one a core")
    todo = [job for job in jobs if status(job.folder) != "finished"]
    if not todo:
        return []
    # While it exists, this sweep's runs are asked to stop: it reaches all machines that share the folder.
    stop_file = todo[0].folder.with_name(f".stop-{secrets.token_hex(4)}")
    make_or_stop = joblib.delayed(functools.partial(make, stop_file=stop_file))
    # Ray sets handlers of its own for signals: ours must come later.
    with (
        _handed_out(backend, address, workers) as beside,
        StopRequest() as stop,
        _Progress(todo, len(jobs), stop, stop_file),
    ):
        try:
            codes = joblib.Parallel(n_jobs=beside, pre_dispatch="n_jobs")(make_or_stop(job) for job in todo)
        except BaseException:
            _touch(stop_file)  # for threads that were about to start a run, and for other machines
            for child in list(_children):
                child.terminate()
            raise
    stop_file.unlink(missing_ok=True)
    if stop.requested:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    failed = [(job, code) for job, code in zip(todo, codes, strict=True) if code]
    for job, code in failed:
        print(f"failed: {job.folder} (exit code {code}, see {log_of(job.folder)})")
    return [job for job, _ in failed]


@contextlib.contextmanager
def _handed_out(backend: Backend, address: str | None, workers: int) -> Iterator[int]:
    """The joblib backend, threads that wait for processes or Ray's workers; gives how many run side by side."""
    if backend == "local":
        with joblib.parallel_config(backend="threading"):
            yield workers
        return
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise UserError('--backend ray needs Ray: pip install -c constraints.txt -e ".[ray]"') from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise UserError(f"there is no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
    register_ray()
    cores = int(ray.cluster_resources().get("CPU", 1))
    try:
        # By default a worker holds no core once it has started, and all may be put on one machine.
        with joblib.parallel_config(backend="ray", ray_remote_args={"num_cpus": 1}):
            yield cores if workers == -1 else min(workers, cores)  # a worker without a core would be waited for
    finally:
        ray.shutdown()


_children: set[subprocess.Popen] = set()  # the runs that this process has started and that have not ended


def make(job: Job, stop_file: Path) -> int:
    """Make or resume one run, with its output in FOLDER.log; returns the exit code, 1 if it left no finished run.

    Where there is a file of that name the run is asked to stop, or not begun.
    """
    if stop_file.exists():
        return 1
    folder = job.folder
    if _is_trained(folder):
        with log_of(folder).open("a") as log:
            print(f"{folder} is being trained by another process", file=log)
        return 2
    if status(folder) == "finished":  # by another sweep, since this one looked
        return 0
    resumable = any(folder.glob("checkpoints/step_*"))
    if not resumable and folder.exists():  # killed before its first checkpoint: out of the way, but not thrown away
        folder.rename(folder.with_name(f".{folder.name}.cut-off-{time.time_ns()}"))
    arguments = ["--resume", str(folder)] if resumable else [*job.flags, "--run-dir", str(folder)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A session of its own keeps the terminal's Ctrl-C from the run: it is asked to stop here, once. If this process is
    # killed, the kernel asks (Linux).
    command = [*_guard(), *job.program, *arguments]
    with log_of(folder).open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # Ray's workers block signals, and a child inherits that.
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        _children.add(process)
        asked = False
        while (code := process.poll()) is None:
            if stop_file.exists() and not asked:
                process.send_signal(signal.SIGINT)
                asked = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
        _children.discard(process)
    return code or int(status(folder) != "finished")


def _is_trained(folder: Path) -> bool:
    """Whether another process trains in this folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with filelock.FileLock(folder / LOCK, blocking=False):
            return False
    except filelock.Timeout:
        return True
    except (NotImplementedError, OSError):  # a file system without locks
        return False


@functools.cache
def _guard() -> tuple[str, ...]:
    """Words before a command by which the kernel ends it if this process dies, where there are such words."""
    words = ("setpriv", "--pdeathsig", "TERM")
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):  # none, or one that is too old
        return ()
    return words


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # a disk that is full for a moment, or a folder that is gone
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def status(folder: Path) -> str:
    """What a run's record says of it; 'none' if there is no record that can be read."""
    try:
        return json.loads((folder / "record.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "none"


def log_of(folder: Path) -> Path:
    """Where a run's output goes."""
    return folder.with_name(folder.name + ".log")


class _Progress:
    """One bar over all runs, which moves with the runs' own bars; it reads their folders, wherever they are made."""

    def __init__(self, todo: Sequence[Job], total: int, stop: StopRequest, stop_file: Path) -> None:
        self.open, self.total = {job.folder for job in todo}, total
        self.stop, self.stop_file = stop, stop_file
        form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
        self.bar = tqdm(total=total, initial=total - len(todo), bar_format=form)
        self.shown, self.closing = "", threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.thread.join()
        self._show()
        self.bar.close()

    def _follow(self) -> None:
        while not self.closing.wait(POLL):
            if self.stop.requested:
                _touch(self.stop_file)
            self._show()

    def _show(self) -> None:
        self.open = {folder for folder in self.open if status(folder) != "finished"}
        # A run whose own bar is full may still be evaluated or graded for minutes.
        shares = {folder: min(share, 0.99) for folder in sorted(self.open) if (share := _share(log_of(folder)))}
        self.bar.n = self.total - len(self.open) + sum(shares.values())
        done = f"{self.total - len(self.open)} of {self.total} runs"
        names = [f"{folder.name} {share:.0%}" for folder, share in list(shares.items())[:4]]
        self.bar.set_description_str("; ".join([done, *names]), refresh=False)
        if sys.stderr.isatty() or done != self.shown:  # a log file gets a line a run
            self.bar.refresh()
            self.shown = done


def _share(log: Path) -> float:
    """How far a run has come by the last bar in its log, in [0, 1]; 0 if it has not begun."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            found = re.findall(rb"(\d+)%\|", file.read())
    except OSError:
        return 0.0
    return int(found[-1]) / 100 if found else 0.0
