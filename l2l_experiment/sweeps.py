"""Many runs of one training script: what is finished is skipped, what was cut off is resumed.

Each run is a process of its own with one thread; joblib hands them out, on this machine or over a Ray cluster whose
machines share the folder. What a sweep's runs are: `sweep_files`."""

import contextlib
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
from functools import cache
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
BAR = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"


@dataclass(frozen=True)
class Job:
    """One run."""

    script: str  # A training tool (gail, at) or a Python file
    folder: Path  # That the run goes into
    flags: tuple[str, ...]


def run(jobs: Sequence[Job], *, workers: int = -1, backend: Backend = "local", address: str | None = None) -> list[Job]:
    """Make every job that is not finished, `workers` at a time (-1: one a core); returns those that failed.

    On Ctrl-C or SIGTERM every run saves and stops, and then the process exits with code 130. A second Ctrl-C does not
    wait for them."""
    if workers == 0:
        raise UserError("0 runs side by side make none; give a number of runs, or -1 for one a core")
    todo = [job for job in jobs if status(job.folder) != "finished"]
    if not todo:
        return []
    # While it exists, this sweep's runs are asked to stop: it reaches all machines that share the folder.
    stop_file = todo[0].folder.with_name(f".stop-{secrets.token_hex(4)}")
    stop_file.parent.mkdir(parents=True, exist_ok=True)
    # Ray sets handlers of its own for signals: ours must come later.
    with _joblib_backend(backend, address, workers) as beside, _progress_bar(todo, len(jobs), stop_file) as stop:
        try:
            parallel = joblib.Parallel(n_jobs=beside, pre_dispatch="n_jobs")
            codes = parallel(joblib.delayed(make)(job, stop_file) for job in todo)
        except BaseException:
            _ask_to_stop(stop_file)  # threads that were about to start a run, and other machines
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
def _joblib_backend(backend: Backend, address: str | None, workers: int) -> Iterator[int]:
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

    Where there is a file `stop_file` the run is asked to stop, or not begun."""
    with _run_lock(job.folder, stop_file) as mine:
        if not mine:
            return 1
        return 0 if status(job.folder) == "finished" else _run_subprocess(job, stop_file)  # by another sweep meanwhile


@contextlib.contextmanager
def _run_lock(folder: Path, stop_file: Path) -> Iterator[bool]:
    """Wait until no other sweep, and no process at all, is at work on a run; false if asked to stop before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, told = filelock.FileLock(folder.with_name(f".{folder.name}.turn")), False
    with contextlib.ExitStack() as held:
        while not stop_file.exists():
            with contextlib.suppress(filelock.Timeout):
                with contextlib.suppress(NotImplementedError):  # a file system without locks
                    held.enter_context(lock.acquire(timeout=POLL))
                if not _is_locked(folder):
                    yield True
                    return
                time.sleep(POLL)
            if not told:
                with log_of(folder).open("a") as log:
                    print(f"{folder} is being trained by another process; waiting for it", file=log)
            told = True
        yield False


def _run_subprocess(job: Job, stop_file: Path) -> int:
    folder = job.folder
    resumable = any(folder.glob("checkpoints/step_*"))
    if not resumable and folder.exists():  # killed before its first checkpoint: out of the way, but not thrown away
        folder.rename(folder.with_name(f".{folder.name}.cut-off-{time.time_ns()}"))
    program = ["-m", f"{TOOLS[job.script]}.cli"] if job.script in TOOLS else [job.script]
    # An id that names a module to import is given again: whoever wrote the sweep trusts it.
    trusted = [
        word
        for pair in zip(job.flags, job.flags[1:], strict=False)
        if pair[0] == "--env" and ":" in pair[1]
        for word in pair
    ]
    arguments = ["--resume", str(folder), *trusted] if resumable else [*job.flags, "--run-dir", str(folder)]
    command = [*_die_with_parent(), sys.executable, *program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with log_of(folder).open("a") as log:
        # Ray's workers block signals, and a child inherits that.
        if posix := hasattr(signal, "pthread_sigmask"):
            blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        # A session of its own keeps the terminal's Ctrl-C from the run: it is asked to stop below, once. If this
        # process is killed, the kernel asks (Linux).
        apart = {"start_new_session": True} if posix else {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, **apart)
        if posix:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        _children.add(process)
        while process.poll() is None and not stop_file.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
        process.send_signal(signal.SIGINT if posix else signal.CTRL_BREAK_EVENT)  # nothing if the run has ended
        code = process.wait()
        _children.discard(process)
    return code or int(status(folder) != "finished")


def _is_locked(folder: Path) -> bool:
    """Whether another process trains in this folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with filelock.FileLock(folder / LOCK, blocking=False):
            return False
    except (NotImplementedError, OSError) as error:  # or it is a file system without locks
        return isinstance(error, filelock.Timeout)


@cache
def _die_with_parent() -> tuple[str, ...]:
    """Command prefix (setpriv) by which Linux sends the child SIGTERM if this process dies; empty if not available."""
    words = ("setpriv", "--pdeathsig", "TERM")
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):  # none, or one that is too old
        return ()
    return words


def _ask_to_stop(stop_file: Path) -> None:
    with contextlib.suppress(OSError):  # a disk that is full for a moment, or a folder that is gone
        stop_file.touch()


def status(folder: Path) -> str:
    """What a run's record says of it; 'none' if there is no record that can be read."""
    try:
        return json.loads((folder / "record.json").read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "none"


def log_of(folder: Path) -> Path:
    """Where a run's output goes."""
    return folder.with_name(folder.name + ".log")


@contextlib.contextmanager
def _progress_bar(todo: Sequence[Job], total: int, stop_file: Path) -> Iterator[StopRequest]:
    """A request to stop, which makes `stop_file`, and one bar over all runs, which moves with the runs' own bars: it
    reads their folders, wherever they are made."""
    bar = tqdm(total=total, initial=total - len(todo), bar_format=BAR)
    closing, left, shown = threading.Event(), sorted(job.folder for job in todo), ""

    def show() -> None:
        nonlocal left, shown
        left = [folder for folder in left if status(folder) != "finished"]
        # A run whose own bar is full may still be evaluated or graded for minutes.
        shares = [(folder.name, min(share, 0.99)) for folder in left if (share := _progress_fraction(log_of(folder)))]
        bar.n = total - len(left) + sum(share for _, share in shares)
        done = f"{total - len(left)} of {total} runs"
        bar.set_description_str(
            "; ".join([done, *(f"{name} {share:.0%}" for name, share in shares[:4])]), refresh=False
        )
        if sys.stderr.isatty() or done != shown:  # a log file gets a line a run
            bar.refresh()
            shown = done

    def follow() -> None:
        while not closing.wait(POLL):
            if stop.requested:
                _ask_to_stop(stop_file)
            show()

    thread = threading.Thread(target=follow, daemon=True)
    with StopRequest() as stop:
        thread.start()
        try:
            yield stop
        finally:
            closing.set()
            thread.join()
            show()
            bar.close()


def _progress_fraction(log: Path) -> float:
    """How far a run has come by the last bar in its log, in [0, 1]; 0 if it has not begun."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            found = re.findall(rb"(\d+)%\|", file.read())
    except OSError:
        return 0.0
    return int(found[-1]) / 100 if found else 0.0
