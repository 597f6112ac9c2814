"""Minari's data sets: a folder in its HDF5 layout, or one of its local folder by id."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import (
    KEYS,
    MOST_COMPRESSED,
    RawEpisode,
    Recording,
    map_arrays,
    no_actions,
    one_line,
    report_damage,
)
from l2l_gail.demonstrations.readers.npz import read_arrays

D4RL = {  # names in a flat file of D4RL, and ours
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminals": "terminations",
    "timeouts": "truncations",
}
DEEPEST = 20  # groups within groups
MINARI_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")  # (namespace/)name-vN


def read_hdf5(path: Path) -> Recording:
    """A data set in Minari's HDF5 layout: its folder, its `data` folder or the file itself; or a flat file of D4RL.

    Read with h5py rather than Minari, so that a file stays readable whatever versions Minari supports by then."""
    candidates = [path] if path.is_file() else [path / "data" / "main_data.hdf5", path / "main_data.hdf5"]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise UserError(f"{path} is no data set in Minari's HDF5 layout: it has no data/main_data.hdf5")
    with report_damage(file), h5py.File(file, "r") as handle:
        names = sorted((name for name in handle if name.startswith("episode_")), key=_episode_number)
        if not names and "observations" in handle:
            return read_arrays(
                {ours: _arrays(handle, name, file) for name, ours in D4RL.items() if name in handle}, str(path)
            )

    def episodes() -> Iterator[RawEpisode]:
        for name in names:
            with report_damage(file), h5py.File(file, "r") as handle:
                if not isinstance(handle.get(name, getlink=True), h5py.HardLink) or not isinstance(
                    handle[name], h5py.Group
                ):
                    raise UserError(f"{name} of {file} is no group of arrays; it needs {', '.join(KEYS)}")
                raw = {key: _arrays(handle[name], key, file) for key in KEYS if key != "actions" or key in handle[name]}
            yield {"actions": no_actions(len(raw["rewards"]))} | raw

    return Recording(str(path), _recorded_environment(file.with_name("metadata.json")), len(names), episodes())


def _arrays(group: h5py.Group, key: str, file: Path, depth: int = 0) -> Any:
    """An array of a file that a stranger may have made: one that lies in it, and is no larger than it could hold.

    Observations may be a group: a dictionary of such arrays, or a tuple, whose parts Minari calls _index_0, …"""
    where = f"'{key}' of {group.name} in {file}"
    if key not in group:
        raise UserError(
            f"{group.name.strip('/') or 'the top'} of {file} has no array '{key}'; it needs {', '.join(KEYS)}"
        )
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise UserError(f"{where} is a link; arrays must lie in the file itself")
    found = group[key]
    if isinstance(found, h5py.Group):
        if depth == 0 and key != "observations":
            raise UserError(f"{where} is a dictionary ({', '.join(found)}); flatten it into one array")
        if depth == DEEPEST:
            raise UserError(f"{where} is nested more than {DEEPEST} deep")
        if h5py.h5o.get_info(found.id).rc > 1:  # within itself, for instance: that would never end
            raise UserError(f"{where} is linked more than once; arrays must lie in one place")
        parts = {name: _arrays(found, name, file, depth + 1) for name in found}
        indexed = [f"_index_{i}" for i in range(len(parts))]
        return tuple(parts[name] for name in indexed) if parts.keys() == {*indexed} and parts else parts
    if found.external or found.is_virtual:
        raise UserError(f"{where} is stored in another file; arrays must lie in the file itself")
    if found.dtype.kind not in "biuf":
        raise UserError(f"{where} does not hold real numbers (dtype {found.dtype})")
    if found.nbytes > MOST_COMPRESSED * (file.stat().st_size + 1000):
        raise UserError(f"{where} declares {found.nbytes:,} bytes, more than a file of this size can hold")
    return np.asarray(found[()])


def _recorded_environment(metadata: Path) -> str | None:
    """The environment's id in a Minari metadata.json; None where it does not say."""
    if not metadata.is_file():
        return None
    try:
        spec = json.loads(metadata.read_text()).get("env_spec")
        return None if spec is None else str(json.loads(spec)["id"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{metadata} is damaged: {one_line(error)}") from error


def _episode_number(name: str) -> tuple[int, str]:
    number = name.removeprefix("episode_")
    return (int(number), name) if number.isdecimal() else (-1, name)


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
        raise UserError(f"the Minari data set {dataset_id} cannot be opened: {one_line(error)}") from error

    def episodes() -> Iterator[RawEpisode]:
        with report_damage(dataset_id):
            for episode in dataset.iterate_episodes():
                yield {key: map_arrays(getattr(episode, key), np.asarray) for key in KEYS}

    return Recording(dataset_id, dataset.env_spec.id if dataset.env_spec else None, dataset.total_episodes, episodes())
