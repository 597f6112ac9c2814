"""Files that are replaced whole or not at all; JSON and YAML."""

import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from l2l_experiment.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`; whoever reads, even after a crash, finds the old content or the new.

    The temporary name lies in the same folder, because a rename is atomic only within one file system, and says nothing
    of the file's own name, because TensorBoard opens whatever has "tfevents" in its name."""
    temporary = path.with_name(f".tmp_{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def file_name(words: str) -> str:
    """Words as a part of a file's name: what is no letter, digit, `_` or `.` becomes a dash."""
    return re.sub(r"[^\w.]+", "-", words)


def make_folder(path: Path) -> None:
    """Make a folder to write into, with those above it; UserError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Have the disk hold what was written at `path`: a file's content, or the names in a folder."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and writes its names through
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_mapping(
    path: Path, loader: type = yaml.SafeLoader, advice: str = "restore it, or start a new run"
) -> dict[str, Any]:
    """A mapping from a JSON (.json) or YAML file, or a UserError that says what is wrong with the file."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path} is not a regular file")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, loader)
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run's folder: it has no {path.name}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} is damaged ({str(error).splitlines()[0]}); {advice}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (it holds no mapping); {advice}")
    return content


def plain(value: Any, *, finite: bool = False) -> Any:
    """The same in what YAML and JSON know: dict, list, str, bool, int, float, None.

    With `finite`, NaN and infinities become None: JSON has no word for them. TypeError for anything else."""
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str | int)]:
            raise TypeError(f"a key must be a string or an integer, not {wrong[0]!r}")
        return {key: plain(item, finite=finite) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return plain(value.tolist(), finite=finite)
    if isinstance(value, list | tuple):
        return [plain(item, finite=finite) for item in value]
    if isinstance(value, float) and finite and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} into a run's settings or record: {value!r}")
