"""Demonstrations as files: Minari data sets, and plain arrays."""

import dataclasses
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import h5py
import numpy as np

from l2l_experiment.errors import UserError
from l2l_experiment.files import write_atomically
from l2l_gail.demonstrations.episodes import Demonstrations
from l2l_gail.environments import Environment


def save_minari(
    root: str | Path,
    dataset_id: str,
    demonstrations: Demonstrations,
    *,
    seeds: Sequence[int] | None = None,
    algorithm: str = "",
    description: str = "",
    requirements: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Writes a Minari data set under `root` and returns its folder.

    Minari opens it by its id where MINARI_DATASETS_PATH is `root`. The folder appears only when it is complete; a
    folder already there is a `UserError` unless `overwrite`."""
    import minari
    from minari.data_collector import EpisodeBuffer

    if demonstrations.env_id is None:
        raise ValueError("a Minari data set names its environment: set Demonstrations.env_id")
    folder = Path(root) / dataset_id
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} is there already; name another folder with --out or replace it with --overwrite")
    environment = Environment(demonstrations.env_id)
    env = environment.make()
    buffers = [
        EpisodeBuffer(id=i, seed=None if seeds is None else seeds[i], **episode.arrays())
        for i, episode in enumerate(demonstrations.episodes)
    ]
    entry = env.spec.entry_point
    if callable(entry):  # a class that it was registered with, as text: JSON has no classes
        entry = f"{entry.__module__}:{entry.__qualname__}"
    Path(root).mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(prefix=".new-", dir=Path(root).resolve(), ignore_cleanup_errors=True)
    fresh = Path(made.name)  # Minari writes where MINARI_DATASETS_PATH says
    with made, mock.patch.dict(os.environ, MINARI_DATASETS_PATH=str(fresh)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nobody is named as author, and what gymnasium says of versions
        minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=dataclasses.replace(env.spec, entry_point=entry),
            observation_space=environment.observations.space,  # flattened, frames with their channels first
            action_space=env.action_space,
            algorithm_name=algorithm,
            description=description,
            requirements=list(requirements),
            jpeg_encoding=False,
        )
        env.close()
        _compress(fresh / dataset_id / "data" / "main_data.hdf5")
        for parent in folder.relative_to(root).parents[:-1]:  # Minari finds a namespace by this file
            (Path(root) / parent).mkdir(parents=True, exist_ok=True)
            for file in (fresh / parent).glob("namespace_metadata.json"):
                if not (Path(root) / parent / file.name).exists():
                    shutil.copy(file, Path(root) / parent)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh / dataset_id, folder)
    return folder


def _compress(path: Path) -> None:
    """Rewrites an HDF5 file with its arrays compressed, without loss, which Minari has no setting for."""
    small = path.with_suffix(".small")
    with h5py.File(path) as old, h5py.File(small, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim:
                made = new.create_dataset(name, data=item[:], compression="gzip", shuffle=True)
            elif isinstance(item, h5py.Dataset):
                made = new.create_dataset(name, data=item[()])
            else:
                made = new.require_group(name)
            made.attrs.update(item.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)
    os.replace(small, path)


def save_npz(path: str | Path, demonstrations: Demonstrations) -> Path:
    """Writes one .npz file in the format that `load_demonstrations` describes, with T+1 observations an episode."""
    path = Path(path)
    arrays = [episode.arrays() for episode in demonstrations.episodes]
    if not arrays:
        raise ValueError("no episodes to save")
    merged = {key: np.concatenate([episode[key] for episode in arrays]) for key in arrays[0]}
    if demonstrations.env_id is not None:
        merged["env_id"] = np.array(demonstrations.env_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, **merged)
    write_atomically(path, content.getvalue())
    return path
