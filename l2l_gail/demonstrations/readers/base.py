"""What every reader returns, and how it reports damage."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l2l_experiment.errors import UserError

KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
RawEpisode = dict[str, np.ndarray]  # by KEYS


@dataclass(frozen=True)
class Recording:
    """An opened source: what it says of itself, and its episodes, read one by one as they are asked for."""

    name: str
    env_id: str | None
    count: int
    episodes: Iterator[RawEpisode]


class damage_named:
    """Turns what h5py raises on a damaged file into one sentence."""

    def __init__(self, name: str | Path) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | RuntimeError | KeyError) and not isinstance(error, UserError):
            raise UserError(f"{self.name} is damaged or cut off: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
