"""The folder in which the package `imitation` keeps trajectories: a data set of Hugging Face's `datasets`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import KEYS, RawEpisode, Recording, no_actions, one_line


def is_huggingface(path: Path) -> bool:
    """Whether `datasets` wrote this folder."""
    return (path / "dataset_info.json").is_file()


def read_huggingface(path: Path) -> Recording:
    """Trajectories with `obs` (T+1, …), `acts` (T, …), `rews` (T,) and `terminal`, one a row."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{path} needs the package datasets to be read: pip install datasets") from error
    try:
        rows = datasets.load_from_disk(str(path)).with_format("numpy")
    except Exception as error:  # of pyarrow, fsspec and datasets itself
        raise UserError(f"{path} cannot be opened as a data set of trajectories: {one_line(error)}") from error
    columns = getattr(rows, "column_names", ())
    if not {"obs", "terminal"} <= {*columns}:
        raise UserError(
            f"{path} lacks the columns obs and terminal (it has {', '.join(columns) or 'none'}); is it one split?"
        )

    def episodes() -> Iterator[RawEpisode]:
        for row in rows:
            observations = np.asarray(row["obs"])
            steps = len(observations) - 1
            actions = np.asarray(row["acts"]) if "acts" in columns else no_actions(steps)
            rewards = np.asarray(row["rews"]) if "rews" in columns else np.full(steps, np.nan)
            last = np.arange(steps) == steps - 1
            flags = last & bool(row["terminal"]), last & (not row["terminal"])
            yield dict(zip(KEYS, (observations, actions, rewards, *flags), strict=True))

    return Recording(str(path), None, len(rows), episodes())
