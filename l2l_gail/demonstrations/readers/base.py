"""What every reader returns, and how it reports damage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l2l_experiment.errors import UserError

KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
MOST_COMPRESSED = 2000  # how many times larger than its file an array may be: zeros compress a thousandfold
RawEpisode = dict[str, np.ndarray]  # by KEYS


class Recording(NamedTuple):
    """An opened source: what it says of itself, and its episodes, read one by one as they are asked for."""

    name: str
    env_id: str | None
    count: int
    episodes: Iterator[RawEpisode]


@contextmanager
def damage_named(name: str | Path) -> Iterator[None]:
    """Turns what h5py raises on a damaged file into one sentence."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{name} is damaged or cut off: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
