"""Flat arrays, of an .npz file or given in Python."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import KEYS, MOST_COMPRESSED, RawEpisode, Recording, one_line

# What numpy and zipfile raise on damaged files; a header is parsed as Python.
DAMAGE = (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
DAMAGE += (SyntaxError, tokenize.TokenError, OverflowError, MemoryError)


def read_npz(path: Path) -> Recording:
    """Flat arrays in one .npz file; the format is described in `load_demonstrations`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        _require_whole(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except DAMAGE as error:
        raise UserError(f"{path} is damaged or no .npz file of plain arrays: {one_line(error)}") from error
    return read_arrays(arrays, str(path))


def _require_whole(path: Path) -> None:
    """UserError or ValueError if an array's header asks for another size than its member has, or for far more than the
    file can hold: memory is not allocated for what a stranger's file only declares."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
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


def read_arrays(source: Mapping[str, np.ndarray], path: str) -> Recording:
    """The same arrays by their names; `path` is what messages call them."""
    arrays = {key: np.asarray(value) for key, value in source.items()}
    for key in ("observations", "actions"):
        if key not in arrays:
            raise UserError(f"{path} has no array '{key}'; it holds {', '.join(sorted(arrays)) or 'nothing'}")
        if arrays[key].ndim != 2:
            raise UserError(f"{path} has {key} of shape {arrays[key].shape}; (steps, values) would be right")
    steps = len(arrays["actions"])
    arrays.setdefault("rewards", np.full(steps, np.nan))
    terminations, truncations = _ends(arrays, steps, path)
    ends = np.flatnonzero(terminations | truncations) + 1
    count, given = len(ends), len(arrays["observations"])
    if given not in (steps, steps + count):
        raise UserError(
            f"{path} has {given} observations for {steps} actions in {count} episodes; "
            f"{steps + count} (one more than actions in each episode) or {steps} would be right"
        )

    def episodes() -> Iterator[RawEpisode]:
        for i, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
            if given > steps:
                cut = slice(start, end)
                observations, rewards = arrays["observations"][start + i : end + i + 1], arrays["rewards"][cut]
                flags = terminations[cut], truncations[cut]
            elif end - start == 1:  # a single action is kept, as if it led nowhere
                cut, observations = slice(start, end), arrays["observations"][[start, start]]
                rewards, flags = arrays["rewards"][cut], (terminations[cut], truncations[cut])
            else:  # the last action led nowhere known, so the episode stops before it, and not at its true end
                cut = slice(start, end - 1)
                observations = arrays["observations"][start:end]
                rewards = arrays["rewards"][cut].astype(np.float64)
                rewards[-1:] += arrays["rewards"][end - 1]  # so that the episode's return stays what it was
                flags = np.zeros(end - 1 - start, dtype=bool), np.arange(start, end - 1) == end - 2
            yield dict(zip(KEYS, (observations, arrays["actions"][cut], rewards, *flags), strict=True))

    env_id = str(arrays["env_id"]) if "env_id" in arrays else None
    return Recording(path, env_id, count, episodes())


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
        raise UserError(
            f"{path} does not say where episodes end; it needs episode_ends, dones, or terminations and truncations"
        )
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
