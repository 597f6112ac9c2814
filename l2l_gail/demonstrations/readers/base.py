"""What every reader returns, and how it reports damage."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from l2l_experiment.errors import UserError

KEYS = ("observations", "actions", "rewards", "terminations", "truncations")
MOST_COMPRESSED = 2000  # how many times larger than its file an array may be: zeros compress a thousandfold
RawEpisode = dict[str, Any]  # arrays by KEYS; observations may be dictionaries or tuples of arrays


class Recording(NamedTuple):
    """An opened source: what it says of itself, and its episodes, read one by one as they are asked for."""

    name: str
    env_id: str | None
    count: int
    episodes: Iterator[RawEpisode]


def map_arrays(values: Any, function: Callable[[np.ndarray], Any]) -> Any:
    """Apply `function` to an array, or to every array in a dictionary or tuple, keeping the structure."""
    if isinstance(values, Mapping):
        return {key: map_arrays(part, function) for key, part in values.items()}
    return (
        tuple(map_arrays(part, function) for part in values)
        if isinstance(values, tuple)
        else function(np.asarray(values))
    )


def named_arrays(values: Any, name: str = "observations") -> Iterator[tuple[str, np.ndarray]]:
    """Pairs (name for messages, array): the array itself, or every array in a dictionary or tuple."""
    if isinstance(values, Mapping | tuple):
        for key, part in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from named_arrays(part, f"{name}, {key},")
    else:
        yield name, np.asarray(values)


def no_actions(steps: int) -> np.ndarray:
    """The actions of a source that has none, shape (steps, 0)."""
    return np.empty((steps, 0), dtype=np.float32)


@contextmanager
def report_damage(name: str | Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into a UserError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{name} is damaged or cut off: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
