"""Data sets in Minari's local folder."""

import re
from collections.abc import Iterator

import numpy as np

from l2l_experiment.errors import UserError
from l2l_gail.demonstrations.readers.base import KEYS, RawEpisode, Recording, damage_named, one_line

MINARI_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")


def is_minari_id(text: str) -> bool:
    """Whether `text` could be the id of a Minari data set: (namespace/)name-vN."""
    return MINARI_ID.fullmatch(text) is not None


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
