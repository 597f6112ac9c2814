"""Flat arrays, of an .npz file or given in Python."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import KEYS, RawEpisode, Recording, one_line


def read_npz(path: Path) -> Recording:
    """Flat arrays in one .npz file; the format is described in `load_demonstrations`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged or no .npz file of plain arrays: {one_line(error)}") from error
    return read_arrays(arrays, str(path))


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
        right = ends.ndim == 1 and ends.dtype.kind in "iu" and len(ends) > 0
        if not right or ends[0] < 1 or (np.diff(ends.astype(np.int64)) < 1).any() or ends[-1] != steps:
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
