"""Flat arrays, of an .npz file or given in Python; and the .npz files of the package `imitation`."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import (
    KEYS,
    MOST_COMPRESSED,
    RawEpisode,
    Recording,
    map_arrays,
    named_arrays,
    no_actions,
    one_line,
)

# What numpy and zipfile raise on damaged files; a header is parsed as Python.
DAMAGE = (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
DAMAGE += (SyntaxError, tokenize.TokenError, OverflowError, MemoryError)
INFOS = "infos"  # pickled objects that `imitation` stores beside its arrays; nothing here needs them


def read_npz(path: Path) -> Recording:
    """Flat arrays in one .npz file; the format is described in `load_demonstrations`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != INFOS}
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or no .npz file of plain arrays: {one_line(error)}") from error
    return read_arrays(from_imitation(arrays, path) if "indices" in arrays else arrays, str(path))


def from_imitation(arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Trajectories as `imitation` flattens them, by our names: `indices` (episodes − 1,) are the steps at which all
    trajectories but the first begin, and `terminal` (episodes,) says which of them terminated."""
    for key in ("obs", "terminal"):
        if key not in arrays:
            raise UserError(f"{path} has indices but no array '{key}'; it holds {', '.join(sorted(arrays))}")
    terminal, starts = arrays["terminal"].astype(bool).ravel(), arrays["indices"].ravel()
    steps = len(arrays["obs"]) - len(terminal)  # each trajectory has one observation more than actions
    ends = np.append(starts, steps)
    if len(ends) != len(terminal) or starts.dtype.kind not in "iu" or (np.diff(ends, prepend=0) < 1).any():
        raise UserError(f"{path} has indices that do not cut {steps} steps into {len(terminal)} trajectories")
    flags = np.zeros((2, steps), dtype=bool)
    flags[np.where(terminal, 0, 1), ends - 1] = True
    names = {"observations": "obs", "actions": "acts", "rewards": "rews"}
    found = {ours: arrays[theirs] for ours, theirs in names.items() if theirs in arrays}
    return {**found, "terminations": flags[0], "truncations": flags[1]}


def _check_sizes(path: Path) -> None:
    """ValueError if an array's header declares another size than its zip member has, or one that the file cannot hold:
    memory must not be allocated for what an untrusted file only declares."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy") or info.filename == f"{INFOS}.npy":
                continue
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in reader:
                    raise ValueError(f"{info.filename} has version {version} of the format")
                shape, _, dtype = reader[version](member)
                declared = math.prod(shape) * dtype.itemsize
                if dtype.hasobject:
                    raise ValueError(f"{info.filename} holds objects")
                if declared != info.file_size - member.tell() or min(shape, default=0) < 0:
                    raise ValueError(f"{info.filename} declares {declared:,} bytes, and holds others")
            if info.file_size > MOST_COMPRESSED * (path.stat().st_size + 1000):
                raise ValueError(f"{info.filename} declares {info.file_size:,} bytes, more than this file can hold")


def read_arrays(source: Mapping[str, Any], path: str) -> Recording:
    """The same arrays by their names; `path` is what messages call them."""
    if "observations" not in source:
        raise UserError(f"{path} has no array 'observations'; it holds {', '.join(sorted(source)) or 'nothing'}")
    try:
        arrays = {key: np.asarray(value) for key, value in source.items() if key != "observations"}
        observations = map_arrays(source["observations"], np.asarray)
    except ValueError as error:  # a list of episodes of different lengths
        raise UserError(f"{path} holds no arrays ({error}); join the episodes and give episode_ends") from error
    sizes = {}
    for name, part in (*named_arrays(observations), *((key, arrays[key]) for key in ("actions",) if key in arrays)):
        if part.ndim == 0:
            raise UserError(f"{path} has {name} that are a single number; (steps, ...) would be right")
        sizes[name] = len(part)
    given = sizes[next(iter(sizes), "")] if sizes else 0
    if len({size for name, size in sizes.items() if name != "actions"}) != 1:
        raise UserError(f"{path} has observations of different lengths: {sizes}")
    steps = sizes["actions"] if "actions" in sizes else _steps(arrays, path)
    arrays.setdefault("actions", no_actions(steps))
    arrays.setdefault("rewards", np.full(steps, np.nan))
    terminations, truncations = _ends(arrays, steps, path)
    ends = np.flatnonzero(terminations | truncations) + 1
    count = len(ends)
    if given not in (steps, steps + count):
        raise UserError(
            f"{path} has {given} observations for {steps} actions in {count} episodes; "
            f"{steps + count} (one more than actions in each episode) or {steps} would be right"
        )

    def episodes() -> Iterator[RawEpisode]:
        for i, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
            if given > steps:
                cut = slice(start, end)
                rows, rewards = slice(start + i, end + i + 1), arrays["rewards"][cut]
                flags = terminations[cut], truncations[cut]
            elif end - start == 1:  # a single action is kept, as if it led nowhere
                cut, rows = slice(start, end), [start, start]
                rewards, flags = arrays["rewards"][cut], (terminations[cut], truncations[cut])
            else:  # the last action led nowhere known, so the episode stops before it, and not at its true end
                cut, rows = slice(start, end - 1), slice(start, end)
                rewards = arrays["rewards"][cut].astype(np.float64)
                rewards[-1:] += arrays["rewards"][end - 1]  # so that the episode's return stays what it was
                flags = np.zeros(end - 1 - start, dtype=bool), np.arange(start, end - 1) == end - 2
            seen = map_arrays(observations, lambda part, rows=rows: part[rows])
            yield dict(zip(KEYS, (seen, arrays["actions"][cut], rewards, *flags), strict=True))

    env_id = str(arrays["env_id"]) if "env_id" in arrays else None
    return Recording(path, env_id, count, episodes())


def _steps(arrays: Mapping[str, np.ndarray], path: str) -> int:
    """The number of steps of arrays without actions: what else counts them says it."""
    for key in ("rewards", "dones", "terminations", "truncations"):
        if key in arrays and arrays[key].ndim:
            return len(arrays[key])
    if "episode_ends" in arrays and arrays["episode_ends"].size and arrays["episode_ends"].dtype.kind in "iuf":
        return int(arrays["episode_ends"].ravel()[-1])
    raise _no_ends(path)


def _no_ends(path: str) -> UserError:
    needed = "episode_ends, dones, or terminations and truncations"
    return UserError(f"{path} does not say where episodes end; it needs {needed}")


def _ends(arrays: dict[str, np.ndarray], steps: int, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Termination and truncation flags (N,) from whichever of the three forms the file uses."""
    terminations, truncations = np.zeros(steps, dtype=bool), np.zeros(steps, dtype=bool)
    if "episode_ends" in arrays:
        ends = arrays["episode_ends"]
        if ends.dtype.kind not in "iuf" or (ends.dtype.kind == "f" and not (ends == np.round(ends)).all()):
            raise UserError(f"{path} has episode_ends of dtype {ends.dtype}; they must be whole numbers")
        if (
            ends.ndim != 1
            or not len(ends)
            or ends[0] < 1
            or (np.diff(ends.astype(np.int64)) < 1).any()
            or ends[-1] != steps
        ):
            raise UserError(
                f"{path} has episode_ends that do not rise from 1 or more to its number of actions, {steps}"
            )
        truncations[ends.astype(np.int64) - 1] = True
    flags = {"dones": truncations, "terminations": terminations, "truncations": truncations}
    used = [key for key in flags if key in arrays]
    if not used and "episode_ends" not in arrays:
        raise _no_ends(path)
    for key in (*used, "rewards"):
        shape = arrays[key].shape
        if shape != (steps,):
            raise UserError(f"{path} has {key} of shape {shape} for {steps} actions; ({steps},) would be right")
    for key in used:
        flags[key] |= arrays[key].astype(bool)
    if "terminations" in arrays:  # `dones` and `episode_ends` say that, not why, an episode ended
        truncations &= ~terminations | arrays.get("truncations", np.zeros(steps)).astype(bool)
    truncations[-1:] |= ~terminations[-1:]  # a last episode that no flag ends was cut off
    return terminations, truncations
