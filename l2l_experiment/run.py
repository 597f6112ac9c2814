"""A run is a folder: its settings, the record of what it came from and found, and everything it writes."""

import copy
import enum
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml

from l2l_experiment import checkpoint, events, provenance
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping, write_atomically
from l2l_experiment.lock import LOCK, lock


class Run:
    """One run's folder, settings (`config.yaml`) and record (`record.json`).

    `config` is what was asked for and never changes; `record` holds kind, versions, commit, machine, command, times,
    status, and the figures that `update` adds.
    """

    def __init__(self, folder: Path, config: dict[str, Any], record: dict[str, Any]) -> None:
        self.folder, self.config, self.record = folder, config, record

    @classmethod
    def create(cls, folder: Path | str, *, kind: str, config: Mapping[str, Any]) -> Self:
        """Start a run in a folder that does not exist or is empty.

        `kind` names the command that can resume it. `config` may hold whatever YAML can, and paths, tuples, enums and
        numpy numbers, which become strings, lists, their values and plain numbers.
        """
        folder = Path(folder)
        settings = plain(config)
        record = {
            "kind": kind,
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": provenance.command_line(),
            "git": provenance.git_state(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UserError(f"the folder {folder} is not empty; name a new one, or resume the run that it holds")
            write_atomically(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False).encode())
            run = cls(folder, settings, record)
            run.update()
        except OSError as error:
            raise UserError(f"cannot start a run in {folder}: {error.strerror or error}") from error
        return run

    @classmethod
    def open(cls, folder: Path | str, *, kind: str) -> Self:
        """An existing run of this kind."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; name the folder of a run")
        record = read_mapping(folder / "record.json")
        config = read_mapping(folder / "config.yaml")
        if record.get("kind") != kind:
            raise UserError(f"{folder} holds a run of kind {record.get('kind')!r}, but this needs one of kind {kind!r}")
        return cls(folder, config, record)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from training in this folder within the block; UserError if somebody does so now."""
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(self.folder / LOCK))
                self.record = read_mapping(self.folder / "record.json")  # another process may just have let go of it
            except BlockingIOError:
                raise UserError(f"{self.folder} is being trained by another process; wait for it, or stop it") from None
            except OSError as error:
                raise UserError(f"cannot write into {self.folder}: {error.strerror or error}") from error
            yield

    def saved_nothing(self) -> bool:
        """Whether it was stopped before it saved a checkpoint or came to any end."""
        ended = self.record.get("status") != "running" or {"steps", "result"} & self.record.keys()
        return not ended and not checkpoint.exists(self.folder)

    def start_over(self, **figures: Any) -> None:
        """Take up a run that has saved nothing from its beginning; what it logged is cut off."""
        print(f"{self.folder} was stopped before it saved a checkpoint; it starts over")
        events.trim(self.folder, -1)
        self.resumed(0, **figures)

    def resumed(self, step: int, **figures: Any) -> None:
        """Note that training goes on from a step (0: starts over), by what code and where: it need not be what the run
        began with."""
        session = {
            "step": step,
            "command": provenance.command_line(),
            "git": provenance.git_state(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
        }
        earlier = {name: self.record.get(name, []) for name in ("resumed_at", "sessions")}
        self.update(
            status="running",
            resumed_at=[*earlier["resumed_at"], step],
            sessions=[*earlier["sessions"], session],
            **figures,
        )

    def update(self, **figures: Any) -> None:
        """Merge figures into the record, in memory and on disk; a number that is not finite becomes null."""
        self.record |= plain(figures, finite=True)
        write_atomically(self.folder / "record.json", (json.dumps(self.record, indent=2) + "\n").encode())


def default_folder(root: Path | str, name: str) -> Path:
    """`root/name_YYYYmmdd-HHMMSS`, with -2, -3, … behind it if that is taken; nothing is created."""
    # An environment's id may have a namespace: the slash must not become a folder.
    stem = f"{name.replace('/', '_')}_{datetime.now():%Y%m%d-%H%M%S}"
    folder, count = Path(root) / stem, 1
    while folder.exists():
        count += 1
        folder = Path(root) / f"{stem}-{count}"
    return folder


def plain(value: Any, *, finite: bool = False) -> Any:
    """The same in what YAML and JSON know: dict, list, str, bool, int, float, None.

    With `finite`, NaN and infinities become None: JSON has no word for them. TypeError for anything else, and for keys
    that are neither strings nor numbers.
    """
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str | int)]:
            raise TypeError(f"a key must be a string or an integer, not {wrong[0]!r}")
        return {key: plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return plain(value.value, finite=finite)
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return plain(value.tolist(), finite=finite)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item, finite=finite) for item in items]
    if isinstance(value, float) and finite and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return copy.copy(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} into a run's settings or record: {value!r}")
