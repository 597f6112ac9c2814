"""A run is a folder: its settings, the record of what it came from and found, and everything it writes."""

import itertools
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import filelock
import yaml

from l2l_experiment import checkpoint, metrics, provenance
from l2l_experiment.errors import UserError
from l2l_experiment.files import plain, read_mapping, write_atomically
from l2l_experiment.settings import is_text

LOCK = ".lock"  # in a run's folder, held while somebody trains in it
CONFIG, RECORD = "config.yaml", "record.json"
FORMAT = 2  # of a run's folder; the runs of l2l 0.1 do not name one


class Run:
    """One run's folder, settings (`config.yaml`) and record (`record.json`).

    `config` is what was asked for and never changes; `record` holds kind, versions, commit, machine, command, times,
    status, and the figures that `update` adds."""

    def __init__(self, folder: Path, config: dict[str, Any], record: dict[str, Any]) -> None:
        self.folder, self.config, self.record = folder, config, record

    @classmethod
    def create(cls, folder: Path | str, *, kind: str, config: Mapping[str, Any]) -> Self:
        """Start a run in a folder that does not exist or is empty; `kind` names the tool that can resume it."""
        folder, settings = Path(folder), plain(config)
        if not is_text(str(folder.absolute())):
            raise UserError(f"{str(folder.absolute())!r} is not UTF-8; name another folder")
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        record = {"kind": kind, "format": FORMAT, "status": "running", "started": started, **provenance.origin()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            left = {
                path.name for path in folder.iterdir()
            }  # a kill before there was a record leaves the settings alone
            if left - {CONFIG} and not all(name.startswith(".tmp_") for name in left - {CONFIG}):
                raise UserError(f"the folder {folder} is not empty; name a new one, or resume the run that it holds")
            write_atomically(folder / CONFIG, yaml.safe_dump(settings, sort_keys=False).encode())
            run = cls(folder, settings, record)
            run.update()
            return run
        except OSError as error:
            raise UserError(f"cannot start a run in {folder}: {error.strerror or error}") from error

    @classmethod
    def open(cls, folder: Path | str, *, kind: str) -> Self:
        """An existing run of this kind."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; name the folder of a run")
        require_regular_files(folder)
        record, config = read_mapping(folder / RECORD), read_mapping(folder / CONFIG)
        if record.get("kind") != kind:
            raise UserError(f"{folder} holds a run of kind {record.get('kind')!r}, but this needs one of kind {kind!r}")
        if record.get("format") != FORMAT:
            version, git = (record.get("versions") or {}).get("l2l", "0.1.0"), record.get("git") or {}
            commit = f" (commit {git['commit'][:12]})" if "commit" in git else ""
            raise UserError(f"{folder} was made by l2l {version}{commit}; only that version resumes and plays it")
        return cls(folder, config, record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from training in this folder within the block; UserError if somebody does so now."""
        lock = filelock.FileLock(self.folder / LOCK)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise UserError(f"{self.folder} is being trained by another process; wait for it, or stop it") from None
        except NotImplementedError:
            pass  # a file system without locks
        except OSError as error:
            raise UserError(f"cannot write into {self.folder}: {error.strerror or error}") from error
        try:
            self.record = read_mapping(self.folder / RECORD)  # another process may just have let go of it
            yield
        finally:
            lock.release()

    def saved_nothing(self) -> bool:
        """Whether it was stopped before it saved a checkpoint or came to any end."""
        ended = self.record.get("status") != "running" or {"steps", "result"} & self.record.keys()
        return not ended and not checkpoint.exists(self.folder)

    def log_resume(self, step: int, *, every: int | None = None, **figures: Any) -> None:
        """Note that training goes on from a step (0: starts over), and by what code and where it does so now.

        Warns if the log, which has a row each `every` steps, lacks some before that step, and notes which."""
        if every is not None and (gaps := metrics.missing(self.folder / metrics.METRICS, step, every)):
            told = f"{len(gaps)} of {step // every} rows before step {step:,} are missing (the first at {gaps[0]:,})"
            print(f"warning: {self.folder / metrics.METRICS}: {told}; the curve has a gap for good", file=sys.stderr)
            figures["missing_rows"] = gaps
        sessions = [*self.record.get("sessions", []), {"step": step, **provenance.origin()}]
        resumed_at = [*self.record.get("resumed_at", []), step]
        self.update(status="running", resumed_at=resumed_at, sessions=sessions, **figures)

    def update(self, **figures: Any) -> None:
        """Merge figures into the record, in memory and on disk; a number that is not finite becomes null."""
        self.record |= plain(figures, finite=True)
        write_atomically(self.folder / RECORD, (json.dumps(self.record, indent=2) + "\n").encode())


def require_regular_files(folder: Path) -> None:
    """UserError if a run's folder holds anything but files and folders: what is written through a stranger's link lands
    elsewhere, and a pipe is waited for."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            if not stat.S_ISDIR(mode := path.lstat().st_mode) and not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "no file"
                raise UserError(f"{path} is {kind}; a run's folder holds files and folders only: remove it, or copy it")


def default_folder(root: Path | str, name: str) -> Path:
    """`root/name_YYYYmmdd-HHMMSS`, with -2, -3, … behind it if that is taken; nothing is created."""
    # An environment's id may have a namespace: the slash must not become a folder.
    stem = f"{name.replace('/', '_')}_{datetime.now():%Y%m%d-%H%M%S}"
    names = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    return next(folder for name in names if not (folder := Path(root) / name).exists())
