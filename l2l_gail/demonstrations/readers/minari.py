"""Minari's data sets: a folder in its HDF5 layout, or one of its local folder by id."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import KEYS, RawEpisode, Recording, damage_named, one_line

MINARI_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")  # (namespace/)name-vN


def read_hdf5(path: Path) -> Recording:
    """A data set in Minari's HDF5 layout: its folder, its `data` folder or the file itself. Read with h5py rather than
    Minari, so that a file stays readable whatever versions Minari supports by then."""
    candidates = [path] if path.is_file() else [path / "data" / "main_data.hdf5", path / "main_data.hdf5"]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise UserError(f"{path} is no data set in Minari's HDF5 layout: it has no data/main_data.hdf5")
    with damage_named(file), h5py.File(file, "r") as handle:
        names = sorted((name for name in handle if name.startswith("episode_")), key=_episode_number)

    def episodes() -> Iterator[RawEpisode]:
        for name in names:
            with damage_named(file), h5py.File(file, "r") as handle:
                group = handle[name]
                for key in KEYS:
                    if key not in group or not isinstance(group[key], h5py.Dataset):
                        raise UserError(f"{name} of {file} has no array '{key}'; it needs {', '.join(KEYS)}")
                raw = {key: np.asarray(group[key][()]) for key in KEYS}
            yield raw

    return Recording(str(path), _recorded_environment(file.with_name("metadata.json")), len(names), episodes())


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
        with damage_named(dataset_id):
            for episode in dataset.iterate_episodes():
                yield {key: np.asarray(getattr(episode, key)) for key in KEYS}

    return Recording(dataset_id, dataset.env_spec.id if dataset.env_spec else None, dataset.total_episodes, episodes())
