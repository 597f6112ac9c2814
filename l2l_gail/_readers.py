"""The file formats of demonstrations: each reader opens a source and yields its episodes as raw arrays, unchecked."""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from l2l_experiment.errors import UserError

RawEpisode = dict[str, np.ndarray]  # observations, actions, rewards, terminations, truncations

KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
MINARI_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")


@dataclass(frozen=True)
class Recording:
    """An opened source: what it says of itself, and its episodes, read one by one as they are asked for."""

    name: str
    env_id: str | None
    count: int
    episodes: Iterator[RawEpisode]


def is_minari_id(text: str) -> bool:
    """Whether `text` could be the id of a Minari data set: (namespace/)name-vN."""
    return MINARI_ID.fullmatch(text) is not None


def read_hdf5(path: Path) -> Recording:
    """A data set in Minari's HDF5 layout: its folder, its `data` folder or the file itself.

    Read with h5py rather than Minari, so that a file stays readable whatever versions Minari supports by then.
    """
    candidates = [path] if path.is_file() else [path / "data" / "main_data.hdf5", path / "main_data.hdf5"]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise UserError(f"{path} is no data set in Minari's HDF5 layout: it has no data/main_data.hdf5")
    with _damage_named(file), h5py.File(file, "r") as handle:
        names = sorted((name for name in handle if name.startswith("episode_")), key=_episode_number)

    def episodes() -> Iterator[RawEpisode]:
        for name in names:
            with _damage_named(file), h5py.File(file, "r") as handle:
                group = handle[name]
                for key in KEYS:
                    if key not in group or not isinstance(group[key], h5py.Dataset):
                        raise UserError(f"{name} of {file} has no array '{key}'; it needs {', '.join(KEYS)}")
                raw = {key: np.asarray(group[key][()]) for key in KEYS}
            yield raw

    return Recording(str(path), _recorded_environment(file.with_name("metadata.json")), len(names), episodes())


def read_minari(dataset_id: str) -> Recording:
    """A data set in Minari's local folder, in whichever storage. Nothing is downloaded."""
    import minari

    try:
        dataset = minari.load_dataset(dataset_id)
    except FileNotFoundError as error:
        raise UserError(
            f"{dataset_id} is no folder here and no Minari data set on this machine; if Minari has it, fetch it with: "
            f"minari download {dataset_id}"
        ) from error
    except (ImportError, OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"the Minari data set {dataset_id} cannot be opened: {_one_line(error)}") from error

    def episodes() -> Iterator[RawEpisode]:
        with _damage_named(dataset_id):
            for episode in dataset.iterate_episodes():
                yield {key: np.asarray(getattr(episode, key)) for key in KEYS}

    return Recording(dataset_id, dataset.env_spec.id if dataset.env_spec else None, dataset.total_episodes, episodes())


def read_npz(path: Path) -> Recording:
    """Flat arrays in one .npz file; the format is described in `demonstrations.load`."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged or no .npz file of plain arrays: {_one_line(error)}") from error
    for key in ("observations", "actions"):
        if key not in arrays:
            raise UserError(f"{path} has no array '{key}'; it holds {', '.join(sorted(arrays)) or 'nothing'}")
        if arrays[key].ndim != 2:
            raise UserError(
                f"{path} has {key} of shape {arrays[key].shape}; two dimensions (steps, values) would be right"
            )
    steps = len(arrays["actions"])
    arrays.setdefault("rewards", np.full(steps, np.nan))
    terminations, truncations = _ends(arrays, steps, path)
    if arrays["rewards"].shape != (steps,):
        raise UserError(
            f"{path} has rewards of shape {arrays['rewards'].shape} for {steps} actions; ({steps},) would be right"
        )
    ends = np.flatnonzero(terminations | truncations) + 1
    count = len(ends)
    extra = len(arrays["observations"]) - steps
    if extra not in (0, count):
        raise UserError(
            f"{path} has {len(arrays['observations'])} observations for {steps} actions in {count} episodes; "
            f"{steps + count} (one more than actions in each episode) or {steps} would be right"
        )

    def episodes() -> Iterator[RawEpisode]:
        for i, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
            if extra:
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
    return Recording(str(path), env_id, count, episodes())


def _ends(arrays: dict[str, np.ndarray], steps: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Termination and truncation flags (N,) from whichever of the three forms the file uses."""
    terminations, truncations = np.zeros(steps, dtype=bool), np.zeros(steps, dtype=bool)
    if "episode_ends" in arrays:
        ends = arrays["episode_ends"]
        right = ends.ndim == 1 and ends.dtype.kind in "iu" and len(ends) > 0
        if not right or ends[0] < 1 or (np.diff(ends.astype(np.int64)) < 1).any() or ends[-1] != steps:
            raise UserError(
                f"{path} has episode_ends that do not rise from 1 or more to the number of actions, {steps}"
            )
        truncations[ends.astype(np.int64) - 1] = True
    flags = {"dones": truncations, "terminations": terminations, "truncations": truncations}
    used = [key for key in flags if key in arrays]
    if not used and "episode_ends" not in arrays:
        raise UserError(
            f"{path} does not say where episodes end; it needs episode_ends, dones, or terminations and truncations"
        )
    for key in used:
        if arrays[key].shape != (steps,):
            raise UserError(
                f"{path} has {key} of shape {arrays[key].shape} for {steps} actions; ({steps},) would be right"
            )
        flags[key] |= arrays[key].astype(bool)
    if "terminations" in arrays:  # `dones` and `episode_ends` say that, not why, an episode ended
        truncations &= ~terminations | arrays.get("truncations", np.zeros(steps)).astype(bool)
    if steps and not (terminations[-1] or truncations[-1]):
        truncations[-1] = True
    return terminations, truncations


def _recorded_environment(metadata: Path) -> str | None:
    """The environment's id in a Minari metadata.json; None where it does not say."""
    if not metadata.is_file():
        return None
    try:
        spec = json.loads(metadata.read_text()).get("env_spec")
        return None if spec is None else str(json.loads(spec)["id"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{metadata} is damaged: {_one_line(error)}") from error


def _episode_number(name: str) -> tuple[int, str]:
    number = name.removeprefix("episode_")
    return (int(number), name) if number.isdecimal() else (-1, name)


class _damage_named:
    """Turns what h5py raises on a damaged file into one sentence."""

    def __init__(self, name: str | Path) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | RuntimeError | KeyError) and not isinstance(error, UserError):
            raise UserError(f"{self.name} is damaged or cut off: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
